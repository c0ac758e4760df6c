//! Remembers that Redis does not answer, so that not every caller has to find out for itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtime_kernel::SharedClock;

/// Either Redis answers, or it does not until some time; then one caller tries.
#[derive(Debug)]
pub(crate) struct Away {
    clock: SharedClock,
    start: Instant,
    pause: Duration,
    /// 0 while it answers, else nanoseconds since the start.
    until: AtomicU64,
}

impl Away {
    pub(crate) fn new(clock: SharedClock, pause: Duration) -> Self {
        Self { start: clock.now(), clock, pause, until: AtomicU64::new(0) }
    }

    /// Whether this caller may ask; if not, how long until somebody tries.
    pub(crate) fn may_ask(&self) -> Result<(), Duration> {
        let until = self.until.load(Ordering::Acquire);
        if until == 0 {
            return Ok(());
        }
        let now = self.now();
        let next = now + nanos(self.pause);
        // Whoever moves the time on is the one that tries.
        if now >= until
            && self.until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return Ok(());
        }
        Err(Duration::from_nanos(until.saturating_sub(now)))
    }

    pub(crate) fn answered(&self) {
        // Nearly always 0 already: a load does not take the line from the other processors.
        if self.until.load(Ordering::Relaxed) != 0 {
            self.until.store(0, Ordering::Release);
        }
    }

    pub(crate) fn did_not_answer(&self) {
        self.until.store(self.now() + nanos(self.pause), Ordering::Release);
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now().saturating_duration_since(self.start)) + 1
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_kernel::ManualClock;
    use std::sync::Arc;

    #[test]
    fn after_a_silence_one_caller_tries_and_the_rest_are_told_at_once() {
        let clock = ManualClock::new();
        let away = Away::new(Arc::new(clock.clone()), Duration::from_secs(1));
        assert_eq!(away.may_ask(), Ok(()));
        away.did_not_answer();
        assert_eq!(away.may_ask(), Err(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(away.may_ask(), Ok(()), "the one that tries");
        assert_eq!(away.may_ask(), Err(Duration::from_secs(1)), "the rest");
        away.answered();
        assert_eq!(away.may_ask(), Ok(()));
    }
}
