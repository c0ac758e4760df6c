//! When an answer stops being useful: a time budget that only ever shrinks.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// A point in time after which nobody waits for the result. Never extended, only narrowed.
///
/// Passed on as the *remaining* budget, because clocks of two machines disagree.
///
/// ```
/// use std::time::Duration;
/// use runtime_kernel::{Clock, Deadline, ManualClock};
///
/// let clock = ManualClock::new();
/// let deadline = Deadline::after(&clock, Duration::from_secs(10));
/// let narrowed = deadline.narrow(Deadline::after(&clock, Duration::from_secs(3)));
/// assert_eq!(narrowed.remaining(&clock), Some(Duration::from_secs(3)));
/// assert_eq!(narrowed.narrow(deadline), narrowed);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit.
    pub const NONE: Self = Self(None);

    /// This instant.
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// A budget from now. A budget too large for the clock is no limit.
    pub fn after(clock: &dyn Clock, budget: Duration) -> Self {
        Self(clock.now().checked_add(budget))
    }

    /// The earlier of the two.
    #[must_use]
    pub fn narrow(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// The instant, if there is a limit.
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }

    /// What is left: `None` without a limit, zero once it has passed.
    pub fn remaining(self, clock: &dyn Clock) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(clock.now()))
    }

    /// Whether it has passed.
    pub fn is_expired(self, clock: &dyn Clock) -> bool {
        self.remaining(clock).is_some_and(|left| left.is_zero())
    }

    /// Refuses work nobody waits for.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with code `deadline.exceeded` once it has passed.
    pub fn check(self, clock: &dyn Clock) -> Result<(), Error> {
        if self.is_expired(clock) { Err(Self::exceeded()) } else { Ok(()) }
    }

    /// The error every part of the house answers with when a deadline has passed.
    pub fn exceeded() -> Error {
        Error::new(ErrorKind::Timeout, "deadline.exceeded", "the deadline has passed")
            .with_retry(crate::Retry::Never)
    }

    /// Runs a future until the deadline. The future is dropped when time is up.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the deadline passes first.
    pub async fn run<T>(self, clock: &dyn Clock, work: impl Future<Output = T>) -> Result<T, Error> {
        if self.0.is_none() {
            return Ok(work.await);
        }
        self.check(clock)?;
        let mut work = pin!(work);
        // Set only once there is something to wait for: most work is done at once.
        let mut timer = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            let timer = timer.get_or_insert_with(|| clock.sleep(self.remaining(clock).unwrap_or_default()));
            timer.as_mut().poll(cx).map(|()| Err(Self::exceeded()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn narrowing_never_extends(a in proptest::option::of(0u64..1000), b in proptest::option::of(0u64..1000)) {
            let clock = ManualClock::new();
            let make = |s: Option<u64>| s.map_or(Deadline::NONE, |s| Deadline::after(&clock, Duration::from_secs(s)));
            let left = make(a).narrow(make(b)).remaining(&clock);
            let least = [a, b].into_iter().flatten().min().map(Duration::from_secs);
            prop_assert_eq!(left, least);
        }
    }

    #[test]
    fn an_expired_deadline_refuses_before_it_runs_anything() {
        let clock = ManualClock::new();
        let deadline = Deadline::after(&clock, Duration::from_secs(1));
        deadline.check(&clock).unwrap();
        clock.advance(Duration::from_secs(1));
        assert_eq!(deadline.check(&clock).unwrap_err().code(), "deadline.exceeded");
    }

    #[tokio::test]
    async fn work_is_dropped_when_its_time_is_up() {
        let clock = ManualClock::new();
        let deadline = Deadline::after(&clock, Duration::from_secs(1));
        let driver = clock.clone();
        let (result, ()) = tokio::join!(deadline.run(&clock, std::future::pending::<()>()), async move {
            driver.advance(Duration::from_secs(1));
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout);
    }
}
