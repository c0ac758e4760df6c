//! Keys in memory: for tests and for services whose keys come and go with the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use runtime_kernel::Timestamp;

use crate::error::KeyError;
use crate::key::{ApiKey, KeyId};
use crate::store::{KeyFilter, KeyStore, Rotation, StoredKey};

/// Keys in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeyStore {
    keys: Arc<Mutex<BTreeMap<KeyId, StoredKey>>>,
}

impl MemoryKeyStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyId, StoredKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn insert(&self, key: &StoredKey) -> Result<(), KeyError> {
        let mut keys = self.keys();
        if keys.contains_key(&key.key.id) {
            return Err(KeyError::Duplicate(key.key.id));
        }
        keys.insert(key.key.id, key.clone());
        Ok(())
    }

    async fn insert_first(&self, key: &StoredKey) -> Result<bool, KeyError> {
        let mut keys = self.keys();
        if !keys.is_empty() {
            return Ok(false);
        }
        keys.insert(key.key.id, key.clone());
        Ok(true)
    }

    async fn find(&self, id: KeyId) -> Result<Option<StoredKey>, KeyError> {
        Ok(self.keys().get(&id).cloned())
    }

    async fn list(&self, filter: &KeyFilter) -> Result<Vec<ApiKey>, KeyError> {
        let keys = self.keys();
        let listed = keys.values().map(|stored| &stored.key).filter(|key| {
            filter.after.is_none_or(|after| key.id > after)
                && (filter.revoked || key.revoked_at.is_none())
                && filter.realm.as_ref().is_none_or(|realm| key.realm.as_ref() == Some(realm))
                && filter.tenant.as_ref().is_none_or(|tenant| key.tenant.as_ref() == Some(tenant))
        });
        Ok(listed.take(usize::try_from(filter.limit()).unwrap_or(usize::MAX)).cloned().collect())
    }

    async fn rotate(&self, id: KeyId, rotation: &Rotation) -> Result<ApiKey, KeyError> {
        let mut keys = self.keys();
        let stored = keys.get_mut(&id).ok_or(KeyError::NotFound(id))?;
        if stored.key.revoked_at.is_some() {
            return Err(KeyError::Revoked(id));
        }
        if stored.generation != rotation.generation {
            return Err(KeyError::Raced(id));
        }
        stored.previous = rotation.overlap_until.map(|_| stored.hash);
        stored.hash = rotation.hash;
        stored.generation += 1;
        stored.key.hint.clone_from(&rotation.hint);
        stored.key.rotated_at = Some(rotation.at);
        stored.key.overlap_until = rotation.overlap_until;
        Ok(stored.key.clone())
    }

    async fn revoke(&self, id: KeyId, at: Timestamp, reason: &str) -> Result<ApiKey, KeyError> {
        let mut keys = self.keys();
        let stored = keys.get_mut(&id).ok_or(KeyError::NotFound(id))?;
        if stored.key.revoked_at.is_none() {
            stored.key.revoked_at = Some(at);
            stored.key.revoke_reason = Some(reason.to_owned());
        }
        Ok(stored.key.clone())
    }

    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), KeyError> {
        let mut keys = self.keys();
        for (id, at) in uses {
            if let Some(stored) = keys.get_mut(id) {
                stored.key.last_used_at = stored.key.last_used_at.max(Some(*at));
            }
        }
        Ok(())
    }
}
