//! Where rollouts rest: the port every backend implements.

use std::fmt;

use async_trait::async_trait;

use crate::analysis::Counts;
use crate::error::RolloutError;
use crate::state::{Rollout, Side};

/// What both sides have answered in a generation, over all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The primary side.
    pub primary: Counts,
    /// The canary.
    pub canary: Counts,
}

impl Evidence {
    /// A side's.
    pub fn side(&mut self, side: Side) -> &mut Counts {
        match side {
            Side::Primary => &mut self.primary,
            Side::Canary => &mut self.canary,
        }
    }
}

/// Where rollouts rest, so that restarts and replicas agree. Every backend passes the laws (feature `testkit`).
#[async_trait]
pub trait RolloutStore: fmt::Debug + Send + Sync + 'static {
    /// Every rollout, by name.
    ///
    /// # Errors
    /// [`RolloutError::Store`].
    async fn list(&self) -> Result<Vec<Rollout>, RolloutError>;

    /// One of them.
    ///
    /// # Errors
    /// [`RolloutError::Store`].
    async fn get(&self, name: &str) -> Result<Option<Rollout>, RolloutError>;

    /// Writes a rollout whose `revision` is one more than the one in the store, 1 for a new one; says whether it did.
    /// Of racing writers one does. Evidence of other generations is forgotten.
    ///
    /// # Errors
    /// [`RolloutError::Store`].
    async fn put(&self, rollout: &Rollout) -> Result<bool, RolloutError>;

    /// Adds what this process has seen of a generation, and says what all have.
    ///
    /// # Errors
    /// [`RolloutError::Store`]; whether it was added is not known.
    async fn add(&self, name: &str, generation: u64, seen: Evidence) -> Result<Evidence, RolloutError>;
}
