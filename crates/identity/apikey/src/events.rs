//! What happens to keys, told to whoever listens.

use std::fmt;
use std::sync::Arc;

use crate::error::Rejection;
use crate::key::{ApiKey, KeyId};

/// What happened. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyEvent {
    /// A key was made.
    Issued(ApiKey),
    /// A key's secret was replaced.
    Rotated(ApiKey),
    /// A key was taken back.
    Revoked(ApiKey),
    /// A presented key did not hold. The id is what the key claimed; `None` when it could not be read.
    Rejected {
        /// What it claimed to be.
        id: Option<KeyId>,
        /// Why it does not hold.
        reason: Rejection,
    },
}

/// Something called after each event. Runs in line: it must not block, and hands longer work to a queue.
pub type Hook = Arc<dyn Fn(&KeyEvent) + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Hooks(Vec<Hook>);

impl Hooks {
    pub(crate) fn add(&mut self, hook: Hook) {
        self.0.push(hook);
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> KeyEvent) {
        if !self.0.is_empty() {
            let event = event();
            self.0.iter().for_each(|hook| hook(&event));
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({})", self.0.len())
    }
}
