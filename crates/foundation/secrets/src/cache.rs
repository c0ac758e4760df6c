//! Values kept for a while, so that a slow provider is asked once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use runtime_kernel::SharedClock;

use crate::{SecretError, SecretName, SecretProvider, SecretString};

/// How many names are kept; at the limit the oldest goes.
const MAX_NAMES: usize = 1_024;

/// Keeps what a provider gave, absence included, for a time. Loads are one at a time, so callers that race for a
/// name ask the provider once. Failures are not kept: with [`CachedSecrets::stale_for`] the last value stands in for
/// a while instead.
pub struct CachedSecrets<P> {
    inner: P,
    clock: SharedClock,
    ttl: Duration,
    stale: Duration,
    values: Mutex<HashMap<SecretName, Kept>>,
    loading: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Kept {
    value: Option<SecretString>,
    at: Instant,
}

impl<P: fmt::Debug> fmt::Debug for CachedSecrets<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedSecrets")
            .field("inner", &self.inner)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl<P: SecretProvider> CachedSecrets<P> {
    /// Keeps each value for `ttl`.
    pub fn new(inner: P, clock: SharedClock, ttl: Duration) -> Self {
        let values = Mutex::default();
        Self { inner, clock, ttl, stale: Duration::ZERO, values, loading: tokio::sync::Mutex::new(()) }
    }

    /// When the provider is unavailable, goes on with the last value for so long beyond its time. Default zero.
    #[must_use]
    pub fn stale_for(mut self, stale: Duration) -> Self {
        self.stale = stale;
        self
    }

    /// Forgets a value: the next call asks the provider.
    pub fn forget(&self, name: &SecretName) {
        self.values().remove(name);
    }

    fn values(&self) -> MutexGuard<'_, HashMap<SecretName, Kept>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, name: &SecretName, within: Duration) -> Option<Kept> {
        let values = self.values();
        let kept = values.get(name)?;
        let fresh = self.clock.now().saturating_duration_since(kept.at) < within;
        fresh.then(|| kept.clone())
    }

    fn keep(&self, name: &SecretName, value: Option<SecretString>) {
        let mut values = self.values();
        if values.len() >= MAX_NAMES && !values.contains_key(name) {
            let oldest = values.iter().min_by_key(|(_, kept)| kept.at).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                values.remove(&oldest);
            }
        }
        values.insert(name.clone(), Kept { value, at: self.clock.now() });
    }
}

#[async_trait]
impl<P: SecretProvider> SecretProvider for CachedSecrets<P> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        if let Some(kept) = self.kept(name, self.ttl) {
            return Ok(kept.value);
        }
        let _loading = self.loading.lock().await;
        if let Some(kept) = self.kept(name, self.ttl) {
            return Ok(kept.value);
        }
        match self.inner.get(name).await {
            Ok(value) => {
                self.keep(name, value.clone());
                Ok(value)
            }
            Err(error @ SecretError::Unavailable { .. }) => {
                match self.kept(name, self.ttl.saturating_add(self.stale)) {
                    Some(kept) => {
                        tracing::warn!(target: "secrets", %error, "going on with the last value");
                        Ok(kept.value)
                    }
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}
