//! The limit itself: who may begin, and what is learnt when it ends.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use runtime_kernel::{SharedClock, Ticks};

use crate::algorithm::Algorithm;
use crate::config::ConcurrencyConfig;
use crate::error::{LimitsError, Overloaded};
use crate::window::Window;

/// How much a call matters, by the names of the SRE book (chapter 21). What matters less is turned away earlier.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Criticality {
    /// May be dropped most of the time: two thirds of the limit.
    Sheddable,
    /// May be dropped for minutes: four fifths of the limit.
    SheddablePlus,
    /// What users wait for: nine tenths of the limit.
    #[default]
    Critical,
    /// What hurts at once when it fails: the whole limit.
    CriticalPlus,
}

impl Criticality {
    /// How many of so many places it may use.
    const fn share(self, limit: u32) -> u32 {
        // A limit is at most a million.
        let thirtieths = match self {
            Self::Sheddable => 20,
            Self::SheddablePlus => 24,
            Self::Critical => 27,
            Self::CriticalPlus => 30,
        };
        (limit * thirtieths).div_ceil(30)
    }
}

/// A limit on how many calls are under way, shared by its clones.
///
/// ```
/// use runtime_limits::{ConcurrencyConfig, ConcurrencyLimit, Criticality};
///
/// # fn main() -> Result<(), runtime_kernel::Error> {
/// let limit = ConcurrencyLimit::new(ConcurrencyConfig::default())?;
/// let permit = limit.acquire(Criticality::Critical)?;
/// // … the call …
/// permit.succeeded();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConcurrencyLimit {
    inner: Arc<Inner>,
}

struct Inner {
    limit: AtomicU32,
    in_flight: AtomicU32,
    rejected: AtomicU64,
    window: Window,
    /// When the present window may end.
    ends: AtomicU64,
    nanos: u64,
    min_samples: u32,
    ticks: Ticks,
    algorithm: Mutex<Box<dyn Algorithm>>,
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, in_flight) = (self.limit(), self.in_flight());
        f.debug_struct("ConcurrencyLimit")
            .field("limit", &limit)
            .field("in_flight", &in_flight)
            .finish_non_exhaustive()
    }
}

impl ConcurrencyLimit {
    /// A limit on the machine's clock.
    ///
    /// # Errors
    /// [`LimitsError`] names the key that is wrong.
    pub fn new(config: ConcurrencyConfig) -> Result<Self, LimitsError> {
        Self::on(config, Ticks::machine())
    }

    /// The same on another clock, for tests.
    ///
    /// # Errors
    /// [`LimitsError`] names the key that is wrong.
    pub fn with_clock(config: ConcurrencyConfig, clock: SharedClock) -> Result<Self, LimitsError> {
        Self::on(config, Ticks::of(clock))
    }

    fn on(config: ConcurrencyConfig, ticks: Ticks) -> Result<Self, LimitsError> {
        config.check()?;
        let algorithm = config.build();
        let nanos = u64::try_from(config.window.as_nanos()).unwrap_or(u64::MAX >> 2);
        let inner = Inner {
            limit: AtomicU32::new(algorithm.limit()),
            in_flight: AtomicU32::new(0),
            rejected: AtomicU64::new(0),
            window: Window::default(),
            ends: AtomicU64::new(ticks.now() + nanos),
            nanos,
            min_samples: config.min_samples,
            ticks,
            algorithm: Mutex::new(algorithm),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The right to begin a call.
    ///
    /// # Errors
    /// [`Overloaded`] when as many are under way as may be for its criticality. It is answered at once: nobody waits.
    pub fn acquire(&self, criticality: Criticality) -> Result<Permit, Overloaded> {
        let limit = criticality.share(self.limit());
        let one_more = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
        match self.inner.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(before) => {
                let began = self.inner.ticks.now();
                Ok(Permit { inner: Arc::clone(&self.inner), began, in_flight: before + 1 })
            }
            Err(in_flight) => {
                self.inner.rejected.fetch_add(1, Ordering::Relaxed);
                Err(Overloaded { in_flight, limit })
            }
        }
    }

    /// How many calls may be under way.
    pub fn limit(&self) -> u32 {
        self.inner.limit.load(Ordering::Relaxed)
    }

    /// How many are.
    pub fn in_flight(&self) -> u32 {
        self.inner.in_flight.load(Ordering::Relaxed)
    }

    /// How many have been turned away since it was made.
    pub fn rejected(&self) -> u64 {
        self.inner.rejected.load(Ordering::Relaxed)
    }
}

/// The right to one call. Dropped without a word, the call teaches the limit nothing: it was cancelled, or failed for
/// reasons that have nothing to do with load.
#[must_use = "dropped, the call is over"]
pub struct Permit {
    inner: Arc<Inner>,
    began: u64,
    in_flight: u32,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl Permit {
    /// The call ended well: its latency is a sample.
    pub fn succeeded(self) {
        self.learn(false);
    }

    /// The call was dropped or timed out for overload: the limit is too high.
    pub fn overloaded(self) {
        self.learn(true);
    }

    fn learn(&self, dropped: bool) {
        let inner = &*self.inner;
        let now = inner.ticks.now();
        inner.window.add(now.saturating_sub(self.began), self.in_flight, dropped);
        if now >= inner.ends.load(Ordering::Relaxed) && inner.window.calls() >= inner.min_samples {
            inner.turn(now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    #[cold]
    fn turn(&self, now: u64) {
        // Whoever comes second leaves it to the first.
        let mut algorithm = match self.algorithm.try_lock() {
            Ok(algorithm) => algorithm,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if now < self.ends.load(Ordering::Relaxed) {
            return;
        }
        self.ends.store(now + self.nanos, Ordering::Relaxed);
        if let Some(sample) = self.window.take() {
            self.limit.store(algorithm.update(&sample), Ordering::Relaxed);
        }
    }
}
