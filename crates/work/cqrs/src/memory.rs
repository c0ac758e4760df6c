//! Answers remembered by this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::SharedClock;
use serde_json::Value;

use crate::error::CqrsError;
use crate::idempotency::{Begun, IdempotencyStore, Key};

/// The most keys remembered; new ones are refused beyond until some are past their time.
const CAPACITY: usize = 100_000;

/// Answers in memory: gone with the process, and no other process knows of them.
pub struct MemoryIdempotency {
    entries: Mutex<HashMap<Key, Entry>>,
    clock: SharedClock,
}

struct Entry {
    fingerprint: String,
    fence: u64,
    until: i64,
    answer: Option<Value>,
}

impl MemoryIdempotency {
    /// An empty memory of at most 100 000 keys.
    pub fn new(clock: SharedClock) -> Self {
        Self { entries: Mutex::default(), clock }
    }

    fn now(&self) -> i64 {
        self.clock.utc().as_microsecond()
    }
}

#[async_trait]
impl IdempotencyStore for MemoryIdempotency {
    async fn begin(&self, key: &Key, fingerprint: &str, lease: Duration) -> Result<Begun, CqrsError> {
        let now = self.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Never one that was given before, even when the key was forgotten meanwhile.
        let mut fence = u64::try_from(now).unwrap_or_default();
        if let Some(entry) = entries.get(key) {
            if entry.until >= now {
                if entry.fingerprint != fingerprint {
                    return Ok(Begun::Reused);
                }
                let left = Duration::from_micros(u64::try_from(entry.until - now).unwrap_or_default());
                return Ok(entry.answer.clone().map_or(Begun::InFlight(left), Begun::Done));
            }
            fence = fence.max(entry.fence + 1);
        } else if entries.len() >= CAPACITY {
            entries.retain(|_, entry| entry.until >= now);
            if entries.len() >= CAPACITY {
                return Err(CqrsError::Full);
            }
        }
        let until = now.saturating_add(micros(lease));
        entries
            .insert(key.clone(), Entry { fingerprint: fingerprint.to_owned(), fence, until, answer: None });
        Ok(Begun::Started(fence))
    }

    async fn finish(&self, key: &Key, fence: u64, answer: &Value, keep: Duration) -> Result<bool, CqrsError> {
        let now = self.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let held =
            entries.get_mut(key).filter(|it| it.fence == fence && it.answer.is_none() && it.until >= now);
        Ok(held.is_some_and(|entry| {
            entry.answer = Some(answer.clone());
            entry.until = now.saturating_add(micros(keep));
            true
        }))
    }

    async fn abandon(&self, key: &Key, fence: u64) -> Result<(), CqrsError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(key).filter(|it| it.fence == fence && it.answer.is_none()) {
            // Kept as expired, so that the next fence is a later one.
            entry.until = i64::MIN;
        }
        Ok(())
    }

    async fn prune(&self, max: u32) -> Result<u64, CqrsError> {
        let (now, mut count) = (self.now(), 0);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| {
            let forget = count < u64::from(max) && entry.until < now;
            count += u64::from(forget);
            !forget
        });
        Ok(count)
    }
}

impl fmt::Debug for MemoryIdempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryIdempotency").finish_non_exhaustive()
    }
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
