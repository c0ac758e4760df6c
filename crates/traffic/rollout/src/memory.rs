//! Rollouts in memory, for tests and single processes that may forget.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::RolloutError;
use crate::state::Rollout;
use crate::store::{Evidence, RolloutStore};

/// Rollouts in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryRollouts {
    all: Arc<Mutex<BTreeMap<String, (Rollout, Evidence)>>>,
}

impl MemoryRollouts {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, (Rollout, Evidence)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RolloutStore for MemoryRollouts {
    async fn list(&self) -> Result<Vec<Rollout>, RolloutError> {
        Ok(self.all().values().map(|(rollout, _)| rollout.clone()).collect())
    }

    async fn get(&self, name: &str) -> Result<Option<Rollout>, RolloutError> {
        Ok(self.all().get(name).map(|(rollout, _)| rollout.clone()))
    }

    async fn put(&self, rollout: &Rollout) -> Result<bool, RolloutError> {
        let mut all = self.all();
        let (revision, generation, evidence) = all
            .get(&rollout.name)
            .map_or((0, 0, Evidence::default()), |(own, evidence)| (own.revision, own.generation, *evidence));
        if rollout.revision != revision + 1 {
            return Ok(false);
        }
        let kept = if generation == rollout.generation { evidence } else { Evidence::default() };
        all.insert(rollout.name.clone(), (rollout.clone(), kept));
        Ok(true)
    }

    async fn add(&self, name: &str, generation: u64, seen: Evidence) -> Result<Evidence, RolloutError> {
        let mut all = self.all();
        let Some((rollout, evidence)) = all.get_mut(name) else { return Ok(Evidence::default()) };
        if rollout.generation != generation {
            return Ok(Evidence::default());
        }
        evidence.primary = evidence.primary.plus(seen.primary);
        evidence.canary = evidence.canary.plus(seen.canary);
        Ok(*evidence)
    }
}
