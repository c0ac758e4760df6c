//! The limit itself: who may begin, and what is learnt when it ends.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use runtime_kernel::{Deadline, SharedClock, SystemClock, Ticks};

use crate::algorithm::Algorithm;
use crate::algorithm::baseline::PATIENCE;
use crate::calls::{Begun, Calls, ONE_IN};
use crate::config::{AlgorithmConfig, ConcurrencyConfig};
use crate::criticality::Criticality;
use crate::error::{LimitsError, Overloaded};
use crate::queue::Queue;
use crate::window::Window;

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
    calls: Alone<Calls>,
    window: Alone<Window>,
    told: Alone<Told>,
    rejected: AtomicU64,
    /// When the present window may end.
    ends: AtomicU64,
    nanos: u64,
    min_samples: u32,
    /// A measured call that takes longer counts as dropped.
    timeout: u64,
    ticks: Ticks,
    clock: SharedClock,
    queue: Option<Queue>,
    algorithm: Mutex<Box<dyn Algorithm>>,
}

/// What the last window said; everybody reads it.
struct Told {
    limit: AtomicU32,
    /// Whether there is a rush, of which one call in [`ONE_IN`] is measured.
    rush: AtomicBool,
    /// When a call took the last place in this window for the first time; 0 while none has.
    full: AtomicU64,
}

/// How many calls are measured in a window when not all are, and the calls keep coming.
const ENOUGH: u32 = 1_000;

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
        Ok(Self::of(&config, config.build(), ticks, clock))
    }

    fn of(
        config: &ConcurrencyConfig,
        algorithm: Box<dyn Algorithm>,
        ticks: Ticks,
        clock: SharedClock,
    ) -> Self {
        let nanos = u64::try_from(config.window.as_nanos()).unwrap_or(u64::MAX >> 2);
        let timeout = match config.algorithm {
            AlgorithmConfig::Aimd { timeout } => u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        let inner = Inner {
            calls: Alone(Calls::default()),
            told: Alone(Told {
                limit: AtomicU32::new(algorithm.limit()),
                rush: AtomicBool::new(false),
                full: AtomicU64::new(0),
            }),
            rejected: AtomicU64::new(0),
            window: Alone(Window::default()),
            ends: AtomicU64::new(ticks.now() + nanos),
            nanos,
            min_samples: config.min_samples,
            timeout,
            ticks,
            clock,
            queue: config.queue.map(Queue::new),
            algorithm: Mutex::new(algorithm),
        };
        Self { inner: Arc::new(inner) }
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
        let Some(queue) = &self.inner.queue else { return self.inner.enter(criticality) };
        let permit = self.inner.enter(criticality)?;
        // Those who wait come first; whoever joined meanwhile is served by the place given back.
        if queue.waiting() == 0 { Some(permit) } else { None }
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
        self.inner.told.limit.load(Ordering::Relaxed)
    }

    /// How many are.
    pub fn in_flight(&self) -> u32 {
        self.inner.calls.under_way()
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
    /// When it began, or 0 when it is not measured.
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

    #[inline]
    pub(crate) fn learn(&self, dropped: bool) {
        let inner = &self.inner;
        inner.window.saw(self.in_flight, dropped);
        if self.began != 0 {
            inner.measure(self.began);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.calls.end();
        self.inner.serve();
    }
}

impl Inner {
    // Called from two places, of which one is a request's way in: a permit that comes back through memory costs as
    // much as the rest of it.
    #[expect(clippy::inline_always, reason = "measured: a quarter of what the layer costs")]
    #[inline(always)]
    fn enter(self: &Arc<Self>, criticality: Criticality) -> Option<Permit> {
        let limit = criticality.share(self.told.limit.load(Ordering::Relaxed));
        let call = self.calls.begin(limit).or_else(|| self.insist(criticality))?;
        if call.under_way == limit && self.told.full.load(Ordering::Relaxed) == 0 {
            self.filled();
        }
        let measured = !self.told.rush.load(Ordering::Relaxed) || call.stands_for_others();
        let began = if measured { self.ticks.now() } else { 0 };
        Some(Permit { inner: Arc::clone(self), began, in_flight: call.under_way })
    }

    #[cold]
    fn filled(&self) {
        self.told.full.store(self.ticks.now(), Ordering::Relaxed);
    }

    /// Begins a call that found no room if that is for a measurement's sake and the measurement does not end: its window
    /// turns when calls end, and those under way may hang.
    #[cold]
    fn insist(&self, criticality: Criticality) -> Option<Begun> {
        let now = self.ticks.now();
        let since = self.ends.load(Ordering::Relaxed).max(self.told.full.load(Ordering::Relaxed));
        if now.saturating_sub(since) <= self.nanos.saturating_mul(u64::from(PATIENCE)) {
            return None;
        }
        let mut algorithm = self.algorithm()?;
        let limit = algorithm.give_up(self.window.so_far().as_ref());
        self.told.limit.store(limit, Ordering::Relaxed);
        // Whoever is turned away next does not ask again at once.
        self.ends.store(now.saturating_add(self.nanos), Ordering::Relaxed);
        drop(algorithm);
        self.calls.begin(criticality.share(limit))
    }

    /// Whoever comes second leaves it to the first.
    fn algorithm(&self) -> Option<MutexGuard<'_, Box<dyn Algorithm>>> {
        match self.algorithm.try_lock() {
            Ok(algorithm) => Some(algorithm),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Gives places that are free to those who wait.
    #[inline]
    fn serve(self: &Arc<Self>) {
        if let Some(queue) = &self.queue
            && queue.waiting() > 0
        {
            self.hand_on(queue);
        }
    }

    #[cold]
    fn hand_on(self: &Arc<Self>, queue: &Queue) {
        queue.serve(self.ticks.now(), |criticality| self.enter(criticality));
    }

    fn measure(&self, began: u64) {
        let now = self.ticks.now();
        let took = now.saturating_sub(began);
        self.window.add(took);
        if took > self.timeout {
            // One call among many does not show in what they took on average.
            self.window.saw(0, true);
        }
        if now >= self.ends.load(Ordering::Relaxed) && self.window.calls() >= self.min_samples {
            self.turn(now);
        }
    }

    #[cold]
    fn turn(&self, now: u64) {
        let Some(mut algorithm) = self.algorithm() else { return };
        if now < self.ends.load(Ordering::Relaxed) {
            return;
        }
        self.ends.store(now + self.nanos, Ordering::Relaxed);
        self.told.full.store(0, Ordering::Relaxed);
        if let Some((measured, sample)) = self.window.take() {
            self.told.limit.store(algorithm.update(&sample), Ordering::Relaxed);
            let each = if self.told.rush.load(Ordering::Relaxed) { ONE_IN } else { 1 };
            let enough = self.min_samples.max(ENOUGH);
            let rush = measured.saturating_mul(each) >= enough.saturating_mul(ONE_IN);
            self.told.rush.store(rush, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime_kernel::ManualClock;

    use super::*;
    use crate::algorithm::Sample;

    /// Writes down what it is told.
    #[derive(Clone, Debug, Default)]
    struct Notes(Arc<Mutex<Vec<Sample>>>);

    impl Algorithm for Notes {
        fn limit(&self) -> u32 {
            1_000
        }

        fn update(&mut self, sample: &Sample) -> u32 {
            self.0.lock().unwrap().push(*sample);
            1_000
        }
    }

    impl Notes {
        fn last(&self) -> Sample {
            *self.0.lock().unwrap().last().unwrap()
        }
    }

    fn noted() -> (ManualClock, Notes, ConcurrencyLimit) {
        let (clock, notes) = (ManualClock::new(), Notes::default());
        let shared: SharedClock = Arc::new(clock.clone());
        let ticks = Ticks::of(Arc::clone(&shared));
        let limit =
            ConcurrencyLimit::of(&ConcurrencyConfig::default(), Box::new(notes.clone()), ticks, shared);
        (clock, notes, limit)
    }

    /// One call after the other for 100 ms, 10,000 in all, of which every other takes three times as long.
    fn rush(clock: &ManualClock, limit: &ConcurrencyLimit) -> usize {
        let mut measured = 0;
        for nth in 0..10_000 {
            let permit = limit.acquire(Criticality::Critical).unwrap();
            measured += usize::from(permit.began != 0);
            clock.advance(Duration::from_micros(if nth % 2 == 0 { 5 } else { 15 }));
            permit.succeeded();
        }
        measured
    }

    #[test]
    fn of_a_rush_an_eighth_is_measured_and_the_average_stays_true() {
        let (clock, notes, limit) = noted();
        assert_eq!(rush(&clock, &limit), 10_000, "nobody knew that it would be one");
        assert_eq!(notes.last().latency, Duration::from_micros(10));
        let measured = rush(&clock, &limit);
        assert!((1_100..=1_400).contains(&measured), "{measured}");
        rush(&clock, &limit);
        assert_eq!(notes.0.lock().unwrap().len(), 2, "windows end as they did");
        let average = notes.last().latency.as_nanos();
        assert!((9_700..=10_300).contains(&average), "{average} ns");
    }

    #[test]
    fn what_was_dropped_and_the_most_under_way_are_seen_measured_or_not() {
        let (clock, notes, limit) = noted();
        rush(&clock, &limit);
        assert_eq!((notes.last().in_flight, notes.last().dropped), (1, false));
        let mut held: Vec<_> = (0..40).map(|_| limit.acquire(Criticality::Critical).unwrap()).collect();
        while let Some(last) = held.pop() {
            if last.began == 0 {
                assert!(held.len() > 30);
                last.overloaded();
                break;
            }
        }
        let most = u32::try_from(held.len()).unwrap() + 1;
        drop(held);
        rush(&clock, &limit);
        rush(&clock, &limit);
        assert_eq!((notes.last().in_flight, notes.last().dropped), (most, true));
    }

    #[test]
    fn when_a_rush_is_over_every_call_is_measured_again() {
        let (clock, _, limit) = noted();
        rush(&clock, &limit);
        let mut calls = 0;
        loop {
            let permit = limit.acquire(Criticality::Critical).unwrap();
            clock.advance(Duration::from_millis(10));
            permit.succeeded();
            calls += 1;
            if !limit.inner.told.rush.load(Ordering::Relaxed) {
                break;
            }
        }
        // Ten samples make a window, eighty calls ten samples, and the rush left up to eight behind.
        assert!(calls <= 90, "{calls}");
        for _ in 0..100 {
            let permit = limit.acquire(Criticality::Critical).unwrap();
            assert_ne!(permit.began, 0);
            permit.succeeded();
        }
    }
}
