//! Proves that a presented key holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime_kernel::{Principal, SharedClock, Timestamp};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::config::ApiKeyConfig;
use crate::error::{KeyError, Rejection};
use crate::events::{Hooks, KeyEvent};
use crate::format::PresentedKey;
use crate::hash::{Hasher, SecretHash};
use crate::key::{ApiKey, KeyId, KeyState};
use crate::store::{KeyStore, StoredKey};

/// A key that was proved, and who it speaks for.
#[derive(Debug)]
pub struct Verified {
    /// The key, with the limits declared for it.
    pub key: ApiKey,
    /// Who its bearer acts as.
    pub principal: Arc<Principal>,
    /// When the secret that was shown ends, if it is one that was rotated away.
    ends: Option<Timestamp>,
}

impl Verified {
    /// What was remembered may have ended since.
    fn check_time(&self, now: Timestamp) -> Result<(), Rejection> {
        match self.key.state(now) {
            KeyState::Active if self.ends.is_some_and(|end| now >= end) => Err(Rejection::Expired),
            KeyState::Active => Ok(()),
            KeyState::Pending => Err(Rejection::NotYet),
            KeyState::Expired => Err(Rejection::Expired),
            KeyState::Revoked => Err(Rejection::Revoked),
        }
    }
}

/// Proves keys. Clones share the cache. Made by [`crate::ApiKeys::authenticator`].
///
/// A wrong key costs the same work whether its id exists or not: both stored hashes are compared in constant time,
/// against fixed bytes where there is none. Only the time the store takes to find a row or none may differ.
#[derive(Clone, Debug)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn KeyStore>,
    clock: SharedClock,
    hasher: Hasher,
    cache: Cache,
    hooks: Hooks,
    uses: Mutex<Uses>,
    interval: Duration,
}

/// Last uses not yet written down, and when each key's was last taken in.
#[derive(Debug, Default)]
struct Uses {
    noted: HashMap<KeyId, Timestamp>,
    pending: HashMap<KeyId, Timestamp>,
    capacity: usize,
}

impl Authenticator {
    pub(crate) fn new(
        store: Arc<dyn KeyStore>,
        clock: SharedClock,
        config: &ApiKeyConfig,
        hasher: Hasher,
        hooks: Hooks,
    ) -> Self {
        let cache = Cache::new(config.cache_ttl, config.cache_size, config.negative_cache_size);
        let uses = Mutex::new(Uses { capacity: config.cache_size.max(1), ..Uses::default() });
        let interval = config.last_used_interval;
        Self { inner: Arc::new(Inner { store, clock, hasher, cache, hooks, uses, interval }) }
    }

    /// Proves a key.
    ///
    /// A revocation made by this process counts at once, one made elsewhere after at most `cache_ttl`. Expiry and the
    /// end of an overlap count to the moment. Cancel-safe.
    ///
    /// # Errors
    /// [`KeyError::Rejected`] when the key does not hold, [`KeyError::Store`] when that could not be found out.
    pub async fn authenticate(&self, text: &str) -> Result<Arc<Verified>, KeyError> {
        let inner = &*self.inner;
        let Ok(presented) = PresentedKey::parse(text) else {
            return Err(inner.reject(None, Rejection::Malformed));
        };
        let id = presented.id();
        let name = Sha256::digest(text.as_bytes()).into();
        let now = inner.clock.now();
        let (epoch, answer) = (inner.cache.epoch(), inner.cache.get(&name, now));
        let answer = if let Some(answer) = answer {
            answer
        } else {
            let answer = inner.prove(&presented, inner.store.find(id).await?);
            inner.cache.put(name, id, &answer, now, epoch);
            answer
        };
        let verified = answer.map_err(|reason| inner.reject(Some(id), reason))?;
        let utc = inner.clock.utc();
        verified.check_time(utc).map_err(|reason| inner.reject(Some(id), reason))?;
        inner.note_use(id, utc);
        Ok(verified)
    }

    /// Forgets what it remembers of a key, for a process that learns of a revocation from elsewhere.
    pub fn forget(&self, id: KeyId) {
        self.inner.cache.forget(id);
    }

    /// Writes down the last uses noted since the last time. The module does so every `last_used_interval` and at the
    /// end.
    ///
    /// # Errors
    /// [`KeyError::Store`]; the uses are kept for the next time.
    pub async fn flush(&self) -> Result<(), KeyError> {
        let inner = &*self.inner;
        let uses: Vec<_> = inner.uses().pending.drain().collect();
        if uses.is_empty() {
            return Ok(());
        }
        let result = inner.store.touch(&uses).await;
        if result.is_err() {
            let mut kept = inner.uses();
            for (id, at) in uses {
                let latest = kept.pending.get(&id).map_or(at, |newer| at.max(*newer));
                kept.pending.insert(id, latest);
            }
        }
        result
    }
}

impl Inner {
    fn uses(&self) -> std::sync::MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reject(&self, id: Option<KeyId>, reason: Rejection) -> KeyError {
        self.hooks.tell(|| KeyEvent::Rejected { id, reason });
        reason.into()
    }

    /// Compares the secret with both hashes, whatever the outcome of the first, and with fixed bytes where there is
    /// no key, so that the work tells nothing about which ids exist.
    fn prove(&self, presented: &PresentedKey, stored: Option<StoredKey>) -> Result<Arc<Verified>, Rejection> {
        const NONE: SecretHash = SecretHash::from_bytes([0; 32]);
        let shown = self.hasher.hash(presented.secret());
        let present = stored.as_ref().map_or(&NONE, |stored| &stored.hash);
        let previous = stored.as_ref().and_then(|stored| stored.previous.as_ref()).unwrap_or(&NONE);
        let is_present = bool::from(shown.matches(present));
        let is_previous = bool::from(shown.matches(previous));
        let Some(stored) = stored.filter(|_| is_present || is_previous) else {
            return Err(Rejection::Unknown);
        };
        if stored.key.revoked_at.is_some() {
            return Err(Rejection::Revoked);
        }
        let ends = match (is_present, stored.key.overlap_until) {
            (true, _) => None,
            (false, Some(until)) => Some(until),
            (false, None) => return Err(Rejection::Unknown),
        };
        let principal = Arc::new(stored.key.principal());
        Ok(Arc::new(Verified { key: stored.key, principal, ends }))
    }

    /// At most one note per key and interval; beyond the cache's size uses go unnoted rather than memory unbounded.
    fn note_use(&self, id: KeyId, now: Timestamp) {
        let mut uses = self.uses();
        let fresh = |at: &Timestamp| now.abs_diff(*at) < self.interval;
        if uses.noted.get(&id).is_some_and(fresh) {
            return;
        }
        if uses.noted.len() >= uses.capacity && !uses.noted.contains_key(&id) {
            uses.noted.retain(|_, at| fresh(at));
            if uses.noted.len() >= uses.capacity {
                return;
            }
        }
        uses.noted.insert(id, now);
        uses.pending.insert(id, now);
    }
}
