//! The breaker itself: its states, and when it goes from one to another.
//!
//! | from | to | when |
//! |---|---|---|
//! | closed | open | a rate or the consecutive failures reach their threshold |
//! | open | half-open | its time is up and somebody calls |
//! | half-open | open | so many probes have failed that the rate is reached |
//! | half-open | closed | all probes have answered and it is not |
//! | half-open | half-open | its time is up without a decision: other probes |
//! | any | forced open, disabled, metrics only, closed | an operator says so |
//!
//! Every transition begins a generation; what a call of an earlier one reports later is ignored.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use runtime_kernel::{SharedClock, Ticks};

use crate::breaker::config::BreakerConfig;
use crate::breaker::permit::{Outcome, OwnedPermit, Pass, Permit};
use crate::breaker::state::{BreakerSnapshot, BreakerState, Transition};
use crate::breaker::window::{Mark, Marks};
use crate::config::PolicyError;
use crate::jitter::SharedRng;
use crate::rejection::{Guarded, Rejection};

/// How many transitions are remembered.
const REMEMBERED: usize = 64;

type Observe = dyn Fn(&Transition) + Send + Sync;

/// A circuit breaker, shared by its clones.
///
/// ```
/// use runtime_resilience::{BreakerConfig, CircuitBreaker, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let breaker = CircuitBreaker::new("payments", BreakerConfig::consecutive(2))?;
/// for _ in 0..2 {
///     breaker.acquire()?.record(Outcome::Failure);
/// }
/// let refused = breaker.acquire().unwrap_err();
/// assert!(refused.retry_after() > Some(std::time::Duration::from_secs(9)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker {
    machine: Arc<Machine>,
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { name, .. } = &*self.machine;
        f.debug_struct("CircuitBreaker")
            .field("name", name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl CircuitBreaker {
    /// A closed breaker on the machine's clock.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(name: impl Into<Arc<str>>, config: BreakerConfig) -> Result<Self, PolicyError> {
        Self::build(name.into(), config, Ticks::machine(), SharedRng::from_os(), Box::new(|_| {}))
    }

    /// A closed breaker on another clock, with another source of jitter, whose transitions somebody is told.
    ///
    /// `observe` is called by whoever causes the transition, after it has happened; it must not block.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn with(
        name: impl Into<Arc<str>>,
        config: BreakerConfig,
        clock: SharedClock,
        rng: SharedRng,
        observe: impl Fn(&Transition) + Send + Sync + 'static,
    ) -> Result<Self, PolicyError> {
        Self::build(name.into(), config, Ticks::of(clock), rng, Box::new(observe))
    }

    fn build(
        name: Arc<str>,
        config: BreakerConfig,
        ticks: Ticks,
        rng: SharedRng,
        observe: Box<Observe>,
    ) -> Result<Self, PolicyError> {
        config.check()?;
        let marks = Marks::new(config.window);
        let timed = config.slow_call.is_some();
        let slow = config.slow_call.map_or(u64::MAX, nanos);
        let machine = Machine {
            name,
            slow,
            timed,
            needed: config.needed(),
            marks,
            ticks,
            rng,
            observe,
            config,
            state: AtomicU64::new(word(BreakerState::Closed, 1)),
            until: AtomicU64::new(0),
            row: AtomicU64::new(0),
            openings: AtomicU32::new(0),
            rejected: AtomicU64::new(0),
            turning: Mutex::default(),
        };
        Ok(Self { machine: Arc::new(machine) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// The right to make a call.
    ///
    /// # Errors
    /// [`Rejection::BreakerOpen`] while it refuses calls.
    #[inline]
    pub fn acquire(&self) -> Result<Permit<&Machine>, Rejection> {
        self.machine.admit().map(|pass| Permit::new(&*self.machine, pass))
    }

    /// The same, to be kept beyond the breaker's own life.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn acquire_owned(&self) -> Result<OwnedPermit, Rejection> {
        self.machine.admit().map(|pass| Permit::new(Arc::clone(&self.machine), pass))
    }

    /// Makes a call if it may, and watches how it goes; `judge` says what an answer means.
    ///
    /// Cancel-safe: dropped, the call counts as cancelled.
    ///
    /// # Errors
    /// [`Guarded::Rejected`] without having called, [`Guarded::Failed`] with the call's own error.
    pub async fn call<T, E, W: Future<Output = Result<T, E>>>(
        &self,
        judge: impl FnOnce(&Result<T, E>) -> Outcome,
        work: impl FnOnce() -> W,
    ) -> Result<T, Guarded<E>> {
        let permit = self.acquire()?;
        let result = work().await;
        permit.record(judge(&result));
        result.map_err(Guarded::Failed)
    }

    /// What it does with calls now. A breaker whose time is up stays open until somebody calls.
    pub fn state(&self) -> BreakerState {
        state_of(self.machine.state.load(Ordering::Acquire))
    }

    /// What it has seen.
    pub fn snapshot(&self) -> BreakerSnapshot {
        let totals = self.machine.marks.totals(self.machine.ticks.now());
        BreakerSnapshot {
            state: self.state(),
            calls: totals.calls,
            failed: totals.failed,
            slow: totals.slow,
            rejected: self.machine.rejected.load(Ordering::Relaxed),
        }
    }

    /// The latest transitions, oldest first: at most 64.
    pub fn transitions(&self) -> Vec<Transition> {
        self.machine.turning.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Refuses every call until told otherwise.
    pub fn force_open(&self) {
        self.machine.order(BreakerState::ForcedOpen);
    }

    /// Lets every call through and looks at none until told otherwise.
    pub fn disable(&self) {
        self.machine.order(BreakerState::Disabled);
    }

    /// Counts, and never opens, until told otherwise.
    pub fn watch_only(&self) {
        self.machine.order(BreakerState::MetricsOnly);
    }

    /// Closes it and forgets what it has seen.
    pub fn reset(&self) {
        self.machine.order(BreakerState::Closed);
    }
}

/// The state machine behind a breaker. Public only as what a [`Permit`] holds on to.
pub struct Machine {
    name: Arc<str>,
    config: BreakerConfig,
    slow: u64,
    timed: bool,
    needed: u64,
    /// State (3 bits), generation (16), and while half-open: probes let through, answered, failed (15 each).
    state: AtomicU64,
    /// When an open breaker may let probes through, or half-open ones have had their time.
    until: AtomicU64,
    /// Generation (16 bits) and failures in a row.
    row: AtomicU64,
    /// How often it has opened since it was last closed.
    openings: AtomicU32,
    rejected: AtomicU64,
    marks: Marks,
    ticks: Ticks,
    rng: SharedRng,
    observe: Box<Observe>,
    /// Held for a transition; the latest of them.
    turning: Mutex<VecDeque<Transition>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.name).finish_non_exhaustive()
    }
}

const LET: u64 = 1 << 30;
const DONE: u64 = 1 << 15;
const FIELD: u64 = (1 << 15) - 1;

fn word(state: BreakerState, generation: u16) -> u64 {
    state.code() << 61 | u64::from(generation) << 45
}

fn state_of(word: u64) -> BreakerState {
    BreakerState::of(word >> 61)
}

fn generation(word: u64) -> u16 {
    u16::try_from((word >> 45) & 0xffff).unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> 2)
}

impl Machine {
    #[inline]
    fn admit(&self) -> Result<Pass, Rejection> {
        let seen = self.state.load(Ordering::Acquire);
        match state_of(seen) {
            BreakerState::Closed | BreakerState::MetricsOnly => {
                Ok(Pass { generation: generation(seen), probe: false, counted: true, began: self.began() })
            }
            BreakerState::Disabled => Ok(Pass { generation: 0, probe: false, counted: false, began: 0 }),
            _ => self.admit_slowly(seen),
        }
    }

    pub(crate) fn began(&self) -> u64 {
        if self.timed { self.ticks.now() } else { 0 }
    }

    fn admit_slowly(&self, mut seen: u64) -> Result<Pass, Rejection> {
        loop {
            let state = state_of(seen);
            match state {
                BreakerState::ForcedOpen => return Err(self.refuse(None)),
                BreakerState::Open | BreakerState::HalfOpen => {}
                // Changed meanwhile.
                _ => return self.admit(),
            }
            let probes = u64::from(self.config.half_open_calls);
            if state == BreakerState::HalfOpen && (seen / LET) & FIELD < probes {
                match self.state.compare_exchange(seen, seen + LET, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Ok(self.probe(generation(seen))),
                    Err(changed) => seen = changed,
                }
                continue;
            }
            let (now, until) = (self.ticks.now(), self.until.load(Ordering::Acquire));
            if now < until {
                return Err(self.refuse(Some(Duration::from_nanos(until - now))));
            }
            if let Some(next) = self.turn(seen, BreakerState::HalfOpen, LET) {
                return Ok(self.probe(next));
            }
            seen = self.state.load(Ordering::Acquire);
        }
    }

    fn probe(&self, generation: u16) -> Pass {
        Pass { generation, probe: true, counted: true, began: self.began() }
    }

    fn refuse(&self, retry_after: Option<Duration>) -> Rejection {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        Rejection::BreakerOpen { retry_after }
    }

    pub(crate) fn record(&self, pass: Pass, outcome: Outcome) {
        if !pass.counted {
            return;
        }
        if pass.probe {
            self.probed(pass, outcome);
        } else if outcome != Outcome::Ignored {
            self.watched(pass, outcome);
        }
    }

    #[inline]
    fn mark(&self, pass: Pass, outcome: Outcome) -> (Mark, u64) {
        let now = if self.timed || self.marks.needs_time() { self.ticks.now() } else { 0 };
        let slow = self.timed && now.saturating_sub(pass.began) > self.slow;
        (Mark { failed: outcome == Outcome::Failure, slow }, now)
    }

    /// A call of a closed breaker has answered.
    fn watched(&self, pass: Pass, outcome: Outcome) {
        let (mark, now) = self.mark(pass, outcome);
        let Some(totals) = self.marks.record(pass.generation, now, mark) else { return };
        let in_a_row = self.in_a_row(pass.generation, mark.failed);
        #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
        let reached = |count: u64, rate: f64| count > 0 && count as f64 >= rate * totals.calls as f64;
        let BreakerConfig { failure_rate, slow_call_rate, .. } = self.config;
        let by_rate = totals.calls >= self.needed
            && (reached(totals.failed, failure_rate) || (self.timed && reached(totals.slow, slow_call_rate)));
        if by_rate || in_a_row {
            self.open(word(BreakerState::Closed, pass.generation));
        }
    }

    /// Whether this failure makes enough in a row.
    fn in_a_row(&self, generation: u16, failed: bool) -> bool {
        let Some(most) = self.config.consecutive_failures else { return false };
        let own = u64::from(generation) << 32;
        if !failed {
            // Nearly always 0 already.
            if self.row.load(Ordering::Relaxed) & 0xffff_ffff != 0 {
                self.row.store(own, Ordering::Relaxed);
            }
            return false;
        }
        let one_more = |row: u64| Some(if row >> 32 == own >> 32 { row + 1 } else { own + 1 });
        let before = self.row.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).unwrap_or(0);
        let count = if before >> 32 == own >> 32 { (before & 0xffff_ffff) + 1 } else { 1 };
        count >= u64::from(most)
    }

    /// A probe of a half-open breaker has answered, or has not been made.
    fn probed(&self, pass: Pass, outcome: Outcome) {
        let (mark, _) = self.mark(pass, outcome);
        let mut seen = self.state.load(Ordering::Acquire);
        loop {
            if state_of(seen) != BreakerState::HalfOpen || generation(seen) != pass.generation {
                return;
            }
            let next = match outcome {
                Outcome::Ignored => seen - LET,
                // A slow answer is not what a dependency that has recovered gives.
                _ => seen + DONE + u64::from(mark.failed || mark.slow),
            };
            match self.state.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Err(changed) => seen = changed,
                Ok(_) => return self.decide(next),
            }
        }
    }

    fn decide(&self, seen: u64) {
        let (done, failed) = ((seen / DONE) & FIELD, seen & FIELD);
        let probes = u64::from(self.config.half_open_calls);
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand probes")]
        let reached = failed > 0 && failed as f64 >= self.config.failure_rate * probes as f64;
        if reached {
            self.open(seen);
        } else if done >= probes {
            self.turn(seen, BreakerState::Closed, 0);
        }
    }

    /// Opens the breaker, if it is still in the state and generation it was seen in.
    fn open(&self, seen: u64) {
        self.turn(seen, BreakerState::Open, 0);
    }

    fn order(&self, to: BreakerState) {
        // Somebody else's transition may come first; the order holds all the same.
        while self.turn(self.state.load(Ordering::Acquire), to, 0).is_none() {}
    }

    /// Goes over to a state, unless somebody else has left the one that was seen: its generation.
    #[cold]
    fn turn(&self, seen: u64, to: BreakerState, fields: u64) -> Option<u16> {
        let mut latest = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.state.load(Ordering::Acquire);
        let same = state_of(present) == state_of(seen) && generation(present) == generation(seen);
        if !same {
            return None;
        }
        let next = generation(present).checked_add(1).unwrap_or(1);
        let now = self.ticks.now();
        let open_for = match to {
            BreakerState::Open => {
                let time = self.open_time(self.openings.fetch_add(1, Ordering::Relaxed));
                self.until.store(now + nanos(time), Ordering::Release);
                Some(time)
            }
            BreakerState::HalfOpen => {
                self.until.store(now + nanos(self.config.half_open_timeout), Ordering::Release);
                None
            }
            _ => {
                self.openings.store(0, Ordering::Relaxed);
                None
            }
        };
        self.marks.reset(next);
        self.state.store(word(to, next) | fields, Ordering::Release);
        let transition =
            Transition { breaker: Arc::clone(&self.name), from: state_of(present), to, open_for };
        if latest.len() == REMEMBERED {
            latest.pop_front();
        }
        latest.push_back(transition.clone());
        drop(latest);
        (self.observe)(&transition);
        Some(next)
    }

    fn open_time(&self, openings: u32) -> Duration {
        let BreakerConfig { open_for, open_growth, max_open, open_jitter, .. } = self.config;
        let growth = open_growth.powi(i32::try_from(openings).unwrap_or(i32::MAX));
        let grown = open_for.as_secs_f64() * growth;
        let time = if grown < max_open.as_secs_f64() { Duration::from_secs_f64(grown) } else { max_open };
        if open_jitter == 0.0 {
            return time;
        }
        let share: f64 = self.rng.clone().random_range(0.0..=open_jitter);
        time + time.mul_f64(share)
    }
}
