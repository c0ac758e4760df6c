//! Bytes or operations per second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime_kernel::{SharedClock, Ticks};
use tokio::sync::Semaphore;

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
    /// When the debt is paid, in nanoseconds times `rate`, so that nothing is rounded.
    paid: Mutex<u128>,
    /// Who waits, one after another.
    turn: Semaphore,
    ticks: Ticks,
    clock: SharedClock,
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
        let inner = Inner { rate, burst, paid: Mutex::new(0), turn: Semaphore::new(1), ticks, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes so many units, if that is allowed now; otherwise says how long that will be, if nobody else takes any.
    /// More than the burst is never allowed at once.
    ///
    /// # Errors
    /// How long to wait; nothing was taken. [`Duration::MAX`] for more than the burst.
    pub fn take_now(&self, units: u64) -> Result<(), Duration> {
        let Inner { rate, burst, .. } = *self.inner;
        if units > burst {
            return Err(Duration::MAX);
        }
        let mut paid = self.inner.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let now = u128::from(self.inner.ticks.now()) * u128::from(rate);
        let after = now.max(*paid) + u128::from(units) * SECOND;
        let early = after.saturating_sub(now + u128::from(burst) * SECOND);
        if early == 0 {
            *paid = after;
            return Ok(());
        }
        let nanos = early.div_ceil(u128::from(rate));
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Takes so many units, waiting for them; more than the burst in parts. Those who wait are served in order.
    ///
    /// Cancel-safe: dropped, it keeps what has passed and takes nothing for what has not.
    pub async fn take(&self, units: u64) {
        let mut left = units;
        while left > 0 {
            let part = left.min(self.inner.burst);
            let _turn = self.inner.turn.acquire().await;
            while let Err(wait) = self.take_now(part) {
                self.inner.clock.sleep(wait).await;
            }
            left -= part;
        }
    }

    /// How many units pass at once.
    pub fn burst(&self) -> u64 {
        self.inner.burst
    }

    /// Whether nobody waits, so that one who comes now may take.
    #[cfg(feature = "stream")]
    pub(crate) fn is_free(&self) -> bool {
        self.inner.turn.available_permits() > 0
    }
}
