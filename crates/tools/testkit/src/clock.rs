//! A clock whose dates stand still with tokio's paused time, and move with it.

use std::time::{Duration, Instant};

use runtime_kernel::{Clock, SharedClock, Sleep, SystemClock, Timestamp};

/// Time as tokio tells it, dates included: under `#[tokio::test(start_paused = true)]` an hour passes as soon as
/// nothing else can happen, and what is due by date comes due with it.
#[derive(Clone, Copy, Debug)]
pub struct PausedClock {
    start: Instant,
    epoch: Timestamp,
}

impl PausedClock {
    /// A clock that stands at 2026-01-01T00:00:00Z now.
    pub fn new() -> Self {
        let epoch = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { start: SystemClock.now(), epoch }
    }

    /// The same, ready to share.
    pub fn shared() -> SharedClock {
        std::sync::Arc::new(Self::new())
    }
}

impl Default for PausedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn utc(&self) -> Timestamp {
        self.epoch.saturating_add(self.now().saturating_duration_since(self.start))
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn dates_move_with_sleeps_and_not_with_the_machine() {
        let clock = PausedClock::new();
        let (before, date) = (clock.now(), clock.utc());
        clock.sleep(Duration::from_hours(1)).await;
        assert_eq!(clock.now() - before, Duration::from_hours(1));
        assert_eq!(clock.utc().duration_since(date).as_secs(), 3600);
    }
}
