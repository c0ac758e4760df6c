//! Keys over a memory store, a hand-driven clock and a seeded source; a store that counts and can fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rand::{SeedableRng, rngs::StdRng};
use runtime_apikey::{
    ApiKey, ApiKeyConfig, ApiKeys, KeyError, KeyEvent, KeyFilter, KeyId, KeyStore, MemoryKeyStore, Rotation,
    StoredKey,
};
use runtime_kernel::{Error, ErrorKind, ManualClock, Timestamp};

pub(crate) struct Setup {
    pub(crate) keys: ApiKeys,
    pub(crate) clock: ManualClock,
    pub(crate) store: Counting,
    pub(crate) events: Arc<Mutex<Vec<KeyEvent>>>,
}

pub(crate) fn setup() -> Setup {
    setup_with(ApiKeyConfig::default())
}

pub(crate) fn setup_with(config: ApiKeyConfig) -> Setup {
    let (clock, store, events) = (ManualClock::new(), Counting::default(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&events);
    let keys = ApiKeys::builder(Arc::new(store.clone()), Arc::new(clock.clone()), config)
        .rng(StdRng::seed_from_u64(7))
        .hook(move |event| heard.lock().unwrap().push(event.clone()))
        .build()
        .unwrap();
    Setup { keys, clock, store, events }
}

/// A memory store that counts what it is asked and fails when told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting {
    pub(crate) inner: MemoryKeyStore,
    pub(crate) finds: Arc<AtomicUsize>,
    pub(crate) touches: Arc<AtomicUsize>,
    pub(crate) broken: Arc<AtomicBool>,
}

impl Counting {
    fn check(&self) -> Result<(), KeyError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(KeyError::Store(Error::new(ErrorKind::Unavailable, "db.unreachable", "down")));
        }
        Ok(())
    }
}

#[async_trait]
impl KeyStore for Counting {
    async fn insert(&self, key: &StoredKey) -> Result<(), KeyError> {
        self.inner.insert(key).await
    }

    async fn insert_first(&self, key: &StoredKey) -> Result<bool, KeyError> {
        self.inner.insert_first(key).await
    }

    async fn find(&self, id: KeyId) -> Result<Option<StoredKey>, KeyError> {
        self.finds.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        self.inner.find(id).await
    }

    async fn list(&self, filter: &KeyFilter) -> Result<Vec<ApiKey>, KeyError> {
        self.inner.list(filter).await
    }

    async fn rotate(&self, id: KeyId, rotation: &Rotation) -> Result<ApiKey, KeyError> {
        self.inner.rotate(id, rotation).await
    }

    async fn revoke(&self, id: KeyId, at: Timestamp, reason: &str) -> Result<ApiKey, KeyError> {
        self.inner.revoke(id, at, reason).await
    }

    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), KeyError> {
        self.check()?;
        self.touches.fetch_add(uses.len(), Ordering::SeqCst);
        self.inner.touch(uses).await
    }
}
