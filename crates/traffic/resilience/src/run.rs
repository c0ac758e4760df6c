//! Runs an operation under a policy.

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use runtime_kernel::{Classify, Clock, Context, Deadline, Retry};

use crate::budget::Charge;
use crate::delays::Delays;
use crate::error::{Cause, Failure, RetryError, Stop, remember};
use crate::policy::RetryPolicy;

/// Runs `operation` until it succeeds, fails for good, or attempts or time run out; [`Classify::retry`] decides.
///
/// The operation gets the number of the attempt, from 1. Attempts and waits end at the earlier of the context's
/// deadline and the policy's `total_timeout`; when the next wait would not end before it, the last error comes back
/// at once instead. A first [`Retry::Now`] is free, the next in a row wait like [`Retry::Backoff`], so that nothing
/// spins.
///
/// When the context's caller asks again by itself, one attempt is made: retries at every hop of a chain multiply.
///
/// Cancel-safe: dropping the future drops the running attempt or the wait.
///
/// # Errors
/// [`RetryError`], which holds the last error and those before it, and turns into the last one by `?`.
pub async fn retry<T, E, Fut>(
    policy: &RetryPolicy,
    clock: &dyn Clock,
    context: &Context,
    rng: &mut (impl Rng + ?Sized),
    operation: impl FnMut(u32) -> Fut,
) -> Result<T, RetryError<E>>
where
    E: Classify,
    Fut: Future<Output = Result<T, E>>,
{
    let once = context.caller_retries.then(|| policy.once());
    retry_with(once.as_ref().unwrap_or(policy), clock, context.deadline, rng, E::retry, operation).await
}

/// As [`retry`], for any error: `classify` decides, and only the deadline of the context is needed.
///
/// # Errors
/// As [`retry`].
pub async fn retry_with<T, E, Fut>(
    policy: &RetryPolicy,
    clock: &dyn Clock,
    deadline: Deadline,
    rng: &mut (impl Rng + ?Sized),
    mut classify: impl FnMut(&E) -> Retry,
    mut operation: impl FnMut(u32) -> Fut,
) -> Result<T, RetryError<E>>
where
    Fut: Future<Output = Result<T, E>>,
{
    let deadline =
        policy.total_timeout().map_or(deadline, |total| deadline.narrow(Deadline::after(clock, total)));
    let mut waits = Waits::new(policy, clock, rng);
    let mut earlier = VecDeque::new();
    if deadline.is_expired(clock) {
        return Err(RetryError::new(
            Stop::Deadline,
            Failure { attempt: 0, cause: Cause::Deadline, waited: None },
            earlier,
        ));
    }
    for attempt in 1.. {
        let cause = match attempt_once(policy, clock, deadline, operation(attempt)).await {
            Ok(value) => {
                waits.succeeded();
                return Ok(value);
            }
            Err(cause) => cause,
        };
        let verdict = match &cause {
            Cause::Failed(error) => classify(error),
            Cause::TimedOut(_) => Retry::Backoff,
            Cause::Deadline => Retry::Never,
        };
        let failure = Failure { attempt, cause, waited: None };
        match waits.after(attempt, verdict, deadline.remaining(clock)) {
            Ok(wait) => {
                remember(&mut earlier, Failure { waited: Some(wait), ..failure });
                clock.sleep(wait).await;
            }
            Err(_) if matches!(failure.cause, Cause::Deadline) => {
                return Err(RetryError::new(Stop::Deadline, failure, earlier));
            }
            Err(stop) => return Err(RetryError::new(stop, failure, earlier)),
        }
    }
    // `max_attempts` ends the loop above long before the counter does.
    Err(RetryError::new(
        Stop::Exhausted,
        Failure { attempt: u32::MAX, cause: Cause::Deadline, waited: None },
        earlier,
    ))
}

/// One attempt, bounded by its own time-out and by the deadline, whichever comes first.
async fn attempt_once<T, E>(
    policy: &RetryPolicy,
    clock: &dyn Clock,
    deadline: Deadline,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Cause<E>> {
    let left = deadline.remaining(clock);
    let own = policy.attempt_timeout().filter(|own| left.is_none_or(|left| *own < left));
    let bound = own.map_or(deadline, |own| Deadline::after(clock, own));
    match bound.run(clock, work).await {
        Ok(result) => result.map_err(Cause::Failed),
        Err(_) => Err(own.map_or(Cause::Deadline, Cause::TimedOut)),
    }
}

/// Decides after each failure how long to wait; shared by the functions and the layer.
pub(crate) struct Waits<'a, R> {
    policy: &'a RetryPolicy,
    clock: &'a dyn Clock,
    delays: Delays<'a, R>,
    at_once: bool,
    charge: Option<Charge>,
}

impl<'a, R: Rng> Waits<'a, R> {
    /// Begins a call, and counts it.
    pub(crate) fn new(policy: &'a RetryPolicy, clock: &'a dyn Clock, rng: R) -> Self {
        if let Some(budget) = policy.budget().filter(|budget| budget.counts_calls()) {
            budget.called(clock.now());
        }
        Self::resumed(policy, clock, rng)
    }

    /// Goes on with a call that has been counted.
    pub(crate) fn resumed(policy: &'a RetryPolicy, clock: &'a dyn Clock, rng: R) -> Self {
        Self { policy, clock, delays: policy.delays(rng), at_once: false, charge: None }
    }

    /// The call has succeeded.
    pub(crate) fn succeeded(&self) {
        if let Some(budget) = self.policy.budget() {
            budget.give_back(self.charge);
        }
    }

    pub(crate) fn after(
        &mut self,
        attempt: u32,
        verdict: Retry,
        left: Option<Duration>,
    ) -> Result<Duration, Stop> {
        if verdict == Retry::Never {
            return Err(Stop::NotRetryable);
        }
        if attempt >= self.policy.max_attempts() {
            return Err(Stop::Exhausted);
        }
        let delay = self.delays.next_from(self.policy.base(verdict)).ok_or(Stop::Exhausted)?;
        let free = verdict == Retry::Now && !self.at_once;
        self.at_once = verdict == Retry::Now;
        let wait = match verdict {
            Retry::After(asked) => self.policy.pushed_back(asked, delay),
            _ if free => Duration::ZERO,
            _ => delay,
        };
        if left.is_some_and(|left| wait >= left) {
            return Err(Stop::Deadline);
        }
        // Charged before the wait, so that those who wait count.
        if let Some(budget) = self.policy.budget() {
            self.charge = Some(budget.charge(self.clock.now(), verdict).ok_or(Stop::Budget)?);
        }
        Ok(wait)
    }
}
