//! Bytes or operations per second.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime_kernel::{Deadline, SharedClock, Ticks};
use tokio::sync::Notify;

use crate::error::LimitsError;

const SECOND: u128 = 1_000_000_000;

/// So many units per second, and so many at once after a pause. Shared by its clones: however many streams go through
/// one throttle, together they pass no more.
///
/// In any span of time `t` it passes at most `burst + rate × t` units, however often it is asked; the arithmetic is
/// exact for every rate up to `u64::MAX` (the generic cell rate algorithm in whole numbers).
#[derive(Clone, Debug)]
pub struct Throttle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rate: u64,
    burst: u64,
    state: Mutex<State>,
    ticks: Ticks,
    clock: SharedClock,
}

#[derive(Debug, Default)]
struct State {
    /// When the debt is paid, in nanoseconds times `rate`, so that nothing is rounded.
    paid: u128,
    /// Who waits, in order.
    line: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    units: u64,
    turn: Arc<Notify>,
    /// Did not come when it might have passed: nobody waits for it, and it is still before those behind.
    late: bool,
}

impl Throttle {
    /// `rate` units per second, `burst` at once.
    ///
    /// # Errors
    /// [`LimitsError`] when one of them is 0.
    pub fn new(rate: u64, burst: u64, clock: SharedClock) -> Result<Self, LimitsError> {
        if rate == 0 {
            return Err(LimitsError::new("rate", "must be more than 0"));
        }
        if burst == 0 {
            return Err(LimitsError::new("burst", "must be more than 0"));
        }
        let ticks = Ticks::of(Arc::clone(&clock));
        let inner = Inner { rate, burst, state: Mutex::default(), ticks, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes so many units, if that is allowed now; otherwise says how long that will be, if nobody else takes any.
    /// More than the burst is never allowed at once.
    ///
    /// # Errors
    /// How long to wait; nothing was taken. [`Duration::MAX`] for more than the burst.
    pub fn take_now(&self, units: u64) -> Result<(), Duration> {
        if units > self.inner.burst {
            return Err(Duration::MAX);
        }
        let now = self.inner.now();
        let mut state = self.inner.lock();
        let after = now.max(state.paid) + u128::from(units) * SECOND;
        match self.inner.early(after, now) {
            None => {
                state.paid = after;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }

    /// Takes so many units, waiting for them; more than the burst in parts. Those who wait are served in order. Who is not
    /// polled when it might pass is overtaken by those behind, and is the first again when it is.
    ///
    /// Cancel-safe: dropped, it keeps what has passed and takes nothing for what has not.
    pub async fn take(&self, units: u64) {
        let Inner { burst, clock, .. } = &*self.inner;
        let mut left = units;
        while left > 0 {
            let part = left.min(*burst);
            left -= part;
            if self.is_free() && self.take_now(part).is_ok() {
                continue;
            }
            let place = Place { inner: &self.inner, units: part, turn: Arc::default() };
            while let Err(wait) = place.pass() {
                // Told or not, it looks again.
                let _ = Deadline::after(&**clock, wait).run(&**clock, place.turn.notified()).await;
            }
        }
    }

    /// How many units pass at once.
    pub fn burst(&self) -> u64 {
        self.inner.burst
    }

    /// Whether nobody waits, so that one who comes now may take.
    pub(crate) fn is_free(&self) -> bool {
        self.inner.lock().line.iter().all(|waiter| waiter.late)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time now, as debts are counted.
    fn now(&self) -> u128 {
        u128::from(self.ticks.now()) * u128::from(self.rate)
    }

    /// How long it is until a debt that is paid then may be.
    fn early(&self, after: u128, now: u128) -> Option<Duration> {
        let early = after.saturating_sub(now + u128::from(self.burst) * SECOND);
        let nanos = early.div_ceil(u128::from(self.rate));
        (nanos > 0).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// A place in the line, taken when it is first asked to pass. Dropped, it is the next one's.
struct Place<'a> {
    inner: &'a Inner,
    units: u64,
    turn: Arc<Notify>,
}

impl Place<'_> {
    /// Takes once everybody before us has, or has had the time to: who holds a place and is not polled holds up nobody
    /// for longer than its own part takes. Otherwise says how long that will be at most.
    fn pass(&self) -> Result<(), Duration> {
        let now = self.inner.now();
        let mut state = self.inner.lock();
        let State { paid, line } = &mut *state;
        let at = line.iter().position(|waiter| self.is(waiter)).unwrap_or_else(|| {
            line.push_back(Waiter { units: self.units, turn: Arc::clone(&self.turn), late: false });
            line.len() - 1
        });
        let before = line.iter().take(at).filter(|waiter| !waiter.late);
        let before: u128 = before.map(|waiter| u128::from(waiter.units)).sum();
        let own = u128::from(self.units) * SECOND;
        let passed = match self.inner.early(paid.saturating_add(before.saturating_mul(SECOND)) + own, now) {
            None => {
                *paid = now.max(*paid) + own;
                Ok(())
            }
            Some(wait) => Err(wait),
        };
        for (place, waiter) in line.iter_mut().take(at + 1).enumerate() {
            waiter.late = place < at && (waiter.late || passed.is_ok());
        }
        passed
    }

    fn is(&self, waiter: &Waiter) -> bool {
        Arc::ptr_eq(&self.turn, &waiter.turn)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.line.retain(|waiter| !self.is(waiter));
        if let Some(next) = state.line.iter().find(|waiter| !waiter.late) {
            next.turn.notify_one();
        }
    }
}
