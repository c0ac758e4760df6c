//! The port of the inbox: what a consumer has seen, so that what comes again does nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Context, SharedClock};

use crate::error::OutboxError;
use crate::memory::micros;
use crate::store::check_name;

/// The longest message id, in bytes: what index entries have room for.
const MAX_ID: usize = 1024;

/// Whether a consumer gets a message for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was seen before must not be done again"]
pub enum Once {
    /// It does.
    Fresh,
    /// It was seen before.
    Seen,
}

impl Once {
    /// Whether it is the first time.
    pub const fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh)
    }
}

/// Remembers which messages consumers have seen, each tenant's by themselves.
#[async_trait]
pub trait InboxStore: fmt::Debug + Send + Sync + 'static {
    /// Remembers a message by itself, in no transaction with what is done about it: marked before, a crash loses the
    /// effect; marked after, a crash repeats it. For effects in the database use `SqlInbox::once_in`.
    async fn mark(&self, context: &Context, consumer: &str, message_id: &str) -> Result<Once, OutboxError>;
    /// Forgets what was seen longer ago than this; at most so many in one call. Says how many.
    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, OutboxError>;
}

/// Refuses what makes no key.
pub(crate) fn check(consumer: &str, message_id: &str) -> Result<(), OutboxError> {
    check_name("consumer", consumer)?;
    if !(1..=MAX_ID).contains(&message_id.len()) || message_id.contains('\0') {
        return Err(OutboxError::invalid("message_id", format!("must have 1 to {MAX_ID} bytes without NUL")));
    }
    Ok(())
}

/// The namespace of a context's tenant; empty without one.
pub(crate) fn tenant(context: &Context) -> String {
    context.tenant.as_ref().map(|tenant| tenant.namespace()).unwrap_or_default()
}

/// An inbox in this process's memory.
pub struct MemoryInbox {
    seen: Mutex<HashMap<(String, String, String), i64>>,
    clock: SharedClock,
}

impl MemoryInbox {
    /// An inbox that has seen nothing.
    pub fn new(clock: SharedClock) -> Self {
        Self { seen: Mutex::default(), clock }
    }
}

#[async_trait]
impl InboxStore for MemoryInbox {
    async fn mark(&self, context: &Context, consumer: &str, message_id: &str) -> Result<Once, OutboxError> {
        check(consumer, message_id)?;
        let key = (consumer.to_owned(), tenant(context), message_id.to_owned());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains_key(&key) {
            return Ok(Once::Seen);
        }
        seen.insert(key, self.clock.utc().as_microsecond());
        Ok(Once::Fresh)
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, OutboxError> {
        let before = self.clock.utc().as_microsecond().saturating_sub(micros(keep));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old: Vec<_> =
            seen.iter().filter(|(_, at)| **at < before).map(|(key, at)| (*at, key.clone())).collect();
        old.sort();
        old.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        for (_, key) in &old {
            seen.remove(key);
        }
        Ok(old.len() as u64)
    }
}

impl fmt::Debug for MemoryInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryInbox").finish_non_exhaustive()
    }
}
