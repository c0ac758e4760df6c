//! Typed sections that follow reloads.

use std::any::TypeId;
use std::sync::Arc;

use tokio::sync::watch;

use super::Config;
use super::error::ConfigError;
use super::section::Section;
use super::state::State;

/// A section's value in force, and a wake-up when a reload changes it.
pub struct Subscription<T> {
    config: Config,
    versions: watch::Receiver<u64>,
    seen: Arc<T>,
}

impl<T: Section> Subscription<T> {
    pub(super) fn new(config: Config) -> Result<Self, ConfigError> {
        let versions = config.shared.versions.subscribe();
        let state = config.shared.with_section::<T>()?;
        let seen = value_in::<T>(&state).unwrap_or_default();
        Ok(Self { config, versions, seen })
    }

    /// The value in force now. Cheap enough to ask per request.
    pub fn current(&self) -> Arc<T> {
        value_in(&self.config.shared.state.load()).unwrap_or_else(|| Arc::clone(&self.seen))
    }

    /// Waits until a reload changes this section, and returns the new value. Changes that came in between are
    /// seen as one. Waits for ever when none comes.
    ///
    /// Cancel-safe: a change is not lost by dropping the future.
    pub async fn changed(&mut self) -> Arc<T> {
        loop {
            let current = self.current();
            if !Arc::ptr_eq(&current, &self.seen) {
                self.seen = Arc::clone(&current);
                return current;
            }
            // The sender lives in `config`, which we hold: it cannot be gone.
            if self.versions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl<T> Clone for Subscription<T> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), versions: self.versions.clone(), seen: Arc::clone(&self.seen) }
    }
}

impl<T> std::fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("section", &std::any::type_name::<T>()).finish_non_exhaustive()
    }
}

/// All sections at one moment.
#[derive(Clone)]
pub struct Snapshot {
    state: Arc<State>,
}

impl Snapshot {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// The section's value in this snapshot; `None` when nobody had declared the section by then.
    pub fn section<T: Section>(&self) -> Option<Arc<T>> {
        value_in(&self.state)
    }

    /// The version: 1 at start, one more for every reload or rollback that changed something.
    pub fn version(&self) -> u64 {
        self.state.version
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.state.version).finish_non_exhaustive()
    }
}

fn value_in<T: Section>(state: &State) -> Option<Arc<T>> {
    Arc::clone(&state.entries.get(&TypeId::of::<T>())?.value).downcast().ok()
}
