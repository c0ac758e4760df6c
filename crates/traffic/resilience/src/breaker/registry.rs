//! Breakers by key: one per host, tenant or operation, in bounded number.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use runtime_kernel::SharedClock;

use crate::breaker::config::BreakerConfig;
use crate::breaker::machine::CircuitBreaker;
use crate::breaker::state::{BreakerState, Transition};
use crate::config::PolicyError;
use crate::jitter::SharedRng;

type Observe = dyn Fn(&Transition) + Send + Sync;

/// Breakers by key, made when first asked for, at most so many.
///
/// At the limit the closed breaker that was asked for longest ago makes room. When none is closed, the new key shares
/// one breaker with all others that found no room: a dependency that fails is never forgotten for one that is new.
pub struct Breakers {
    config: BreakerConfig,
    most: usize,
    clock: SharedClock,
    rng: SharedRng,
    observe: std::sync::Arc<Observe>,
    shared: CircuitBreaker,
    used: AtomicU64,
    by_key: RwLock<HashMap<Box<str>, Entry>>,
}

struct Entry {
    breaker: CircuitBreaker,
    used: AtomicU64,
}

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Breakers {
    /// At most `most` breakers of one configuration, whose transitions somebody is told.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(
        config: BreakerConfig,
        most: usize,
        clock: SharedClock,
        rng: SharedRng,
        observe: impl Fn(&Transition) + Send + Sync + 'static,
    ) -> Result<Self, PolicyError> {
        let observe: std::sync::Arc<Observe> = std::sync::Arc::new(observe);
        let shared = make("(others)", &config, &clock, &rng, &observe)?;
        let (used, by_key) = (AtomicU64::new(0), RwLock::default());
        Ok(Self { config, most: most.max(1), clock, rng, observe, shared, used, by_key })
    }

    /// The key's breaker.
    pub fn get(&self, key: &str) -> CircuitBreaker {
        let now = self.used.fetch_add(1, Ordering::Relaxed);
        {
            let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = by_key.get(key) {
                entry.used.store(now, Ordering::Relaxed);
                return entry.breaker.clone();
            }
        }
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = by_key.get(key) {
            return entry.breaker.clone();
        }
        if by_key.len() >= self.most {
            let closed = by_key.iter().filter(|(_, entry)| entry.breaker.state() == BreakerState::Closed);
            let oldest = closed.min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return self.shared.clone() };
            by_key.remove(&oldest);
        }
        let Ok(breaker) = make(key, &self.config, &self.clock, &self.rng, &self.observe) else {
            // The configuration was checked when the first was made.
            return self.shared.clone();
        };
        by_key.insert(key.into(), Entry { breaker: breaker.clone(), used: AtomicU64::new(now) });
        breaker
    }

    /// Every breaker there is, sorted by key; the shared one last, if it has been used.
    pub fn all(&self) -> Vec<CircuitBreaker> {
        let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = by_key.values().map(|entry| entry.breaker.clone()).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        if self.shared.snapshot().calls > 0 || self.shared.state() != BreakerState::Closed {
            all.push(self.shared.clone());
        }
        all
    }
}

fn make(
    name: &str,
    config: &BreakerConfig,
    clock: &SharedClock,
    rng: &SharedRng,
    observe: &std::sync::Arc<Observe>,
) -> Result<CircuitBreaker, PolicyError> {
    let observe = std::sync::Arc::clone(observe);
    CircuitBreaker::with(name, config.clone(), clock.clone(), rng.clone(), move |transition| {
        observe(transition);
    })
}
