//! The limit itself: who may begin, and what is learnt when it ends.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use runtime_kernel::{Deadline, SharedClock, SystemClock, Ticks};

use crate::algorithm::Algorithm;
use crate::config::ConcurrencyConfig;
use crate::error::{LimitsError, Overloaded};
use crate::queue::Queue;
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
    /// All of them, what matters least first.
    pub const ALL: [Self; 4] = [Self::Sheddable, Self::SheddablePlus, Self::Critical, Self::CriticalPlus];

    /// As configuration and headers spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

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
    in_flight: Alone<AtomicU32>,
    window: Alone<Window>,
    limit: Alone<AtomicU32>,
    rejected: AtomicU64,
    /// When the present window may end.
    ends: AtomicU64,
    nanos: u64,
    min_samples: u32,
    ticks: Ticks,
    clock: SharedClock,
    queue: Option<Queue>,
    algorithm: Mutex<Box<dyn Algorithm>>,
}

/// Something that has its cache lines to itself (processors fetch them in pairs): who reads the limit does not wait for
/// who counts.
#[repr(align(128))]
struct Alone<T>(T);

impl<T> std::ops::Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
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
        Self::on(config, Ticks::machine(), SystemClock::shared())
    }

    /// The same on another clock, for tests.
    ///
    /// # Errors
    /// [`LimitsError`] names the key that is wrong.
    pub fn with_clock(config: ConcurrencyConfig, clock: SharedClock) -> Result<Self, LimitsError> {
        Self::on(config, Ticks::of(Arc::clone(&clock)), clock)
    }

    fn on(config: ConcurrencyConfig, ticks: Ticks, clock: SharedClock) -> Result<Self, LimitsError> {
        config.check()?;
        let algorithm = config.build();
        let nanos = u64::try_from(config.window.as_nanos()).unwrap_or(u64::MAX >> 2);
        let inner = Inner {
            limit: Alone(AtomicU32::new(algorithm.limit())),
            in_flight: Alone(AtomicU32::new(0)),
            rejected: AtomicU64::new(0),
            window: Alone(Window::default()),
            ends: AtomicU64::new(ticks.now() + nanos),
            nanos,
            min_samples: config.min_samples,
            ticks,
            clock,
            queue: config.queue.map(Queue::new),
            algorithm: Mutex::new(algorithm),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The right to begin a call.
    ///
    /// # Errors
    /// [`Overloaded`] when as many are under way as may be for its criticality. It is answered at once: nobody waits.
    pub fn acquire(&self, criticality: Criticality) -> Result<Permit, Overloaded> {
        self.inner.enter(criticality).ok_or_else(|| self.full(criticality))
    }

    /// The right to begin a call, waiting for it in line if the limit has one (see
    /// [`QueueConfig`](crate::QueueConfig)), but not beyond the deadline. Without a line it is [`acquire`](Self::acquire).
    ///
    /// Cancel-safe: dropped while it waits, it leaves the line, and a place it was just given goes to the next.
    ///
    /// # Errors
    /// [`Overloaded`]: no place and no room in the line, or none came free in time.
    pub async fn wait(&self, criticality: Criticality, deadline: Deadline) -> Result<Permit, Overloaded> {
        let inner = &*self.inner;
        let Some(queue) = &inner.queue else { return self.acquire(criticality) };
        if queue.waiting() == 0
            && let Some(permit) = self.inner.enter(criticality)
        {
            return Ok(permit);
        }
        let came = inner.ticks.now();
        let (told, patience) = queue.join(criticality, came).ok_or_else(|| self.full(criticality))?;
        // A place may have come free before anybody saw that somebody waits.
        self.inner.serve();
        let left = Left(queue);
        let until = deadline.narrow(Deadline::after(&*inner.clock, patience));
        let answer = until.run(&*inner.clock, told).await;
        if let Ok(Ok(permit)) = answer {
            std::mem::forget(left);
            return Ok(permit);
        }
        inner.rejected.fetch_add(1, Ordering::Relaxed);
        let waited = std::time::Duration::from_nanos(inner.ticks.now().saturating_sub(came));
        let late = deadline.is_expired(&*inner.clock);
        Err(if late { Overloaded::DeadlinePassed } else { Overloaded::Waited { waited } })
    }

    /// [`acquire`](Self::acquire) that counts no refusal: the caller will wait, and be counted then.
    #[cfg(feature = "http")]
    #[inline]
    pub(crate) fn acquire_quietly(&self, criticality: Criticality) -> Option<Permit> {
        let permit = self.inner.enter(criticality)?;
        // Those who wait come first; whoever joined meanwhile is served by the place given back.
        if self.waiting() == 0 { Some(permit) } else { None }
    }

    fn full(&self, criticality: Criticality) -> Overloaded {
        self.inner.rejected.fetch_add(1, Ordering::Relaxed);
        Overloaded::Full { in_flight: self.in_flight(), limit: criticality.share(self.limit()) }
    }

    /// How many wait in line.
    pub fn waiting(&self) -> usize {
        self.inner.queue.as_ref().map_or(0, Queue::waiting)
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

/// Whoever leaves the line, however, is forgotten there.
struct Left<'a>(&'a Queue);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.tidy();
    }
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

    pub(crate) fn learn(&self, dropped: bool) {
        let inner = &self.inner;
        let now = inner.ticks.now();
        inner.window.add(now.saturating_sub(self.began), self.in_flight, dropped);
        if now >= inner.ends.load(Ordering::Relaxed) && inner.window.calls() >= inner.min_samples {
            inner.turn(now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.inner.serve();
    }
}

impl Inner {
    fn enter(self: &Arc<Self>, criticality: Criticality) -> Option<Permit> {
        let limit = criticality.share(self.limit.load(Ordering::Relaxed));
        let one_more = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
        let before = self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        let began = self.ticks.now();
        Some(Permit { inner: Arc::clone(self), began, in_flight: before + 1 })
    }

    /// Gives places that are free to those who wait.
    fn serve(self: &Arc<Self>) {
        if let Some(queue) = self.queue.as_ref().filter(|queue| queue.waiting() > 0) {
            queue.serve(self.ticks.now(), |criticality| self.enter(criticality));
        }
    }

    #[cold]
    fn turn(self: &Arc<Self>, now: u64) {
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
