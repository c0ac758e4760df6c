//! Bulkheads: so many calls at once, and so many that wait; the rest are turned away.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime_kernel::{Clock, Deadline};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::PolicyError;
use crate::rejection::Rejection;

/// How many calls may be under way, and how many may wait for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// How many calls may be under way: 1 to 1,000,000. Default 32.
    pub max_concurrent: usize,
    /// How many more may wait: up to 1,000,000. Default 0: who finds no place is turned away at once.
    pub max_waiting: usize,
    /// How long they may wait. Default 1 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_wait: Duration,
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self { max_concurrent: 32, max_waiting: 0, max_wait: Duration::from_secs(1) }
    }
}

impl BulkheadConfig {
    /// So many at once, and nobody waits.
    pub fn at_once(calls: usize) -> Self {
        Self { max_concurrent: calls, ..Self::default() }
    }

    /// The same with room for so many that wait, for so long.
    #[must_use]
    pub fn waiting(mut self, calls: usize, at_most: Duration) -> Self {
        (self.max_waiting, self.max_wait) = (calls, at_most);
        self
    }

    pub(crate) fn check(self) -> Result<(), PolicyError> {
        if !(1..=1_000_000).contains(&self.max_concurrent) {
            return Err(PolicyError { key: "max_concurrent", message: "must be 1 to 1000000" });
        }
        if self.max_waiting > 1_000_000 {
            return Err(PolicyError { key: "max_waiting", message: "must be at most 1000000" });
        }
        if self.max_waiting > 0 && self.max_wait.is_zero() {
            return Err(PolicyError { key: "max_wait", message: "must be more than 0 when calls may wait" });
        }
        Ok(())
    }
}

/// A bulkhead, shared by its clones. Those who wait are served in the order they came.
#[derive(Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

struct Inner {
    config: BulkheadConfig,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place in a bulkhead, free again when dropped.
#[derive(Debug)]
#[must_use = "dropped, the place is free again"]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Bulkhead {
    /// An empty bulkhead.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(config: BulkheadConfig) -> Result<Self, PolicyError> {
        config.check()?;
        let places = Arc::new(Semaphore::new(config.max_concurrent));
        Ok(Self { inner: Arc::new(Inner { config, places, waiting: AtomicUsize::new(0) }) })
    }

    /// A place, if one is free.
    ///
    /// # Errors
    /// [`Rejection::BulkheadFull`].
    pub fn enter_now(&self) -> Result<Place, Rejection> {
        let place = Arc::clone(&self.inner.places).try_acquire_owned();
        place.map(Place).map_err(|_| Rejection::BulkheadFull)
    }

    /// A place, waiting for one if that is allowed, but not beyond the deadline.
    ///
    /// Cancel-safe: dropped while it waits, it leaves the queue.
    ///
    /// # Errors
    /// [`Rejection::BulkheadFull`] when too many wait already, [`Rejection::BulkheadTimeout`] when none came free in
    /// time, [`Rejection::DeadlinePassed`] when nobody waits for the answer any more.
    pub async fn enter(&self, clock: &dyn Clock, deadline: Deadline) -> Result<Place, Rejection> {
        let full = match self.enter_now() {
            Err(full) if self.inner.config.max_waiting > 0 => full,
            place => return place,
        };
        let _queued = self.queue().ok_or(full)?;
        let max_wait = self.inner.config.max_wait;
        let until = deadline.narrow(Deadline::after(clock, max_wait));
        match until.run(clock, Arc::clone(&self.inner.places).acquire_owned()).await {
            // The semaphore is never closed.
            Ok(place) => place.map(Place).map_err(|_| Rejection::BulkheadFull),
            Err(_) if deadline.is_expired(clock) => Err(Rejection::DeadlinePassed),
            Err(_) => Err(Rejection::BulkheadTimeout { waited: max_wait }),
        }
    }

    fn queue(&self) -> Option<Queued<'_>> {
        let most = self.inner.config.max_waiting;
        let join = |waiting: usize| (waiting < most).then_some(waiting + 1);
        self.inner.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, join).ok()?;
        Some(Queued(&self.inner.waiting))
    }

    /// How many calls are under way.
    pub fn under_way(&self) -> usize {
        self.inner.config.max_concurrent - self.inner.places.available_permits()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Acquire)
    }
}

struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bulkheads by key, made when first asked for; one that nobody is in makes room when there are too many.
#[derive(Debug)]
pub struct Bulkheads {
    config: BulkheadConfig,
    most: usize,
    by_key: Mutex<HashMap<Box<str>, Bulkhead>>,
}

impl Bulkheads {
    /// At most `most` bulkheads of one configuration in use at the same time.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(config: BulkheadConfig, most: usize) -> Result<Self, PolicyError> {
        config.check()?;
        Ok(Self { config, most: most.max(1), by_key: Mutex::default() })
    }

    /// The key's bulkhead.
    ///
    /// # Errors
    /// [`Rejection::BulkheadFull`] when every bulkhead there may be is in use by another key.
    pub fn get(&self, key: &str) -> Result<Bulkhead, Rejection> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bulkhead) = by_key.get(key) {
            return Ok(bulkhead.clone());
        }
        if by_key.len() >= self.most {
            by_key.retain(|_, bulkhead| bulkhead.under_way() > 0 || Arc::strong_count(&bulkhead.inner) > 1);
        }
        if by_key.len() >= self.most {
            return Err(Rejection::BulkheadFull);
        }
        // The configuration was checked when the first was made.
        let bulkhead = Bulkhead::new(self.config).map_err(|_| Rejection::BulkheadFull)?;
        by_key.insert(key.into(), bulkhead.clone());
        Ok(bulkhead)
    }
}
