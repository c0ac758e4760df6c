//! A process whose wall clock is wrong: the store must not care.

use std::time::{Duration, Instant};

use runtime_kernel::{Clock, SystemClock, Timestamp};

/// The machine's clock, set ahead or back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skewed {
    /// Seconds ahead.
    pub(crate) ahead: i64,
}

impl Clock for Skewed {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn utc(&self) -> Timestamp {
        let right = SystemClock.utc();
        let wrong = right.as_microsecond().saturating_add(self.ahead.saturating_mul(1_000_000));
        Timestamp::from_microsecond(wrong).unwrap_or(right)
    }

    fn sleep(&self, duration: Duration) -> runtime_kernel::Sleep {
        SystemClock.sleep(duration)
    }
}
