//! Answers to the same question, kept for a while; and one call for all who ask it at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime_kernel::Ticks;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::wire::{ChatRequest, ChatResponse};

/// How long answers are kept, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// How long an answer is kept. Default 5 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub ttl: Duration,
    /// How many answers are kept; the oldest go first. Default 1,000.
    pub answers: usize,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_mins(5), answers: 1_000 }
    }
}

/// A question, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question([u8; 32]);

impl Question {
    /// The tenant is part of it: nobody is given another's answer.
    pub(crate) fn of(tenant: &str, request: &ChatRequest) -> Option<Self> {
        let text = serde_json::to_vec(request).ok()?;
        let mut hash = Sha256::new();
        hash.update(u64::try_from(tenant.len()).ok()?.to_le_bytes());
        hash.update(tenant.as_bytes());
        hash.update(&text);
        Some(Self(hash.finalize().into()))
    }
}

enum Entry {
    /// Somebody asks; when the sender is dropped without an answer, the next one does.
    Asking(watch::Receiver<Option<Arc<ChatResponse>>>),
    Known {
        answer: Arc<ChatResponse>,
        until: u64,
    },
}

pub(crate) struct Cache {
    config: CacheConfig,
    entries: Arc<Mutex<HashMap<Question, Entry>>>,
}

/// What one who comes with a question is told.
pub(crate) enum Found {
    Known(Arc<ChatResponse>),
    Asked(watch::Receiver<Option<Arc<ChatResponse>>>),
    Ask(Asking),
}

/// The right, and the duty, to ask.
pub(crate) struct Asking {
    entries: Arc<Mutex<HashMap<Question, Entry>>>,
    question: Question,
    tell: watch::Sender<Option<Arc<ChatResponse>>>,
    config: CacheConfig,
    over: bool,
}

fn locked(entries: &Mutex<HashMap<Question, Entry>>) -> MutexGuard<'_, HashMap<Question, Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self { config, entries: Arc::default() }
    }

    pub(crate) fn find(&self, question: Question, ticks: &Ticks) -> Found {
        let mut entries = locked(&self.entries);
        match entries.get(&question) {
            Some(Entry::Known { answer, until }) if *until > ticks.now() => {
                return Found::Known(Arc::clone(answer));
            }
            Some(Entry::Asking(told)) => return Found::Asked(told.clone()),
            _ => {}
        }
        let (tell, told) = watch::channel(None);
        entries.insert(question, Entry::Asking(told));
        let entries = Arc::clone(&self.entries);
        Found::Ask(Asking { entries, question, tell, config: self.config, over: false })
    }
}

impl Asking {
    /// Keeps the answer, and gives it to all who wait.
    pub(crate) fn answered(mut self, answer: &Arc<ChatResponse>, ticks: &Ticks) {
        self.over = true;
        let ttl = u64::try_from(self.config.ttl.as_nanos()).unwrap_or(u64::MAX >> 1);
        let mut entries = locked(&self.entries);
        let until = ticks.now().saturating_add(ttl);
        entries.insert(self.question, Entry::Known { answer: Arc::clone(answer), until });
        let known = |entry: &Entry| match entry {
            Entry::Known { until, .. } => Some(*until),
            Entry::Asking(_) => None,
        };
        while entries.values().filter_map(known).count() > self.config.answers {
            let now = ticks.now();
            let before = entries.len();
            entries.retain(|_, entry| known(entry).is_none_or(|until| until > now));
            if entries.len() == before {
                let oldest = entries
                    .iter()
                    .filter_map(|(question, entry)| Some((known(entry)?, *question)))
                    .min_by_key(|(until, _)| *until);
                let Some((_, oldest)) = oldest else { break };
                entries.remove(&oldest);
            }
        }
        drop(entries);
        self.tell.send_replace(Some(Arc::clone(answer)));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.over {
            locked(&self.entries).remove(&self.question);
        }
    }
}
