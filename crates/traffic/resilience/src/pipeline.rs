//! All of it around one call, in one declared order.

use std::future::Future;
use std::time::Duration;

use runtime_kernel::{Classify, Context, Deadline, Retry, SharedClock, SystemClock};

use crate::breaker::{CircuitBreaker, Outcome, Permit};
use crate::bulkhead::Bulkhead;
use crate::config::PolicyError;
use crate::hedge::{HedgeConfig, hedge_while};
use crate::jitter::SharedRng;
use crate::policy::RetryPolicy;
use crate::rejection::{Guarded, Rejection};
use crate::run::Waits;

/// Guards calls to one dependency. Clones share the breaker, the bulkhead and the budget.
///
/// Whatever the order it is put together in, a call passes, from the outside in:
///
/// 1. the deadline: the caller's, narrowed by `timeout` and the retry policy's `total_timeout`; work nobody waits for is
///    not begun;
/// 2. the retries, inside that deadline and the policy's budget;
/// 3. the hedge, which asks again when an attempt is late, or has failed in a way that may pass;
/// 4. the breaker, which sees every attempt, time-outs included;
/// 5. the bulkhead, so that a place is held only while a call is made;
/// 6. the attempt's own time-out (the retry policy's `attempt_timeout`).
///
/// What is turned away here is neither retried nor hedged: the breaker is open and the bulkhead full for a reason.
///
/// ```
/// use std::time::Duration;
/// use runtime_kernel::{Deadline, Error};
/// use runtime_resilience::{Bulkhead, BulkheadConfig, BreakerConfig, CircuitBreaker, Pipeline, RetryPolicy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let payments = Pipeline::new()
///     .timeout(Duration::from_secs(2))
///     .retry(RetryPolicy::exponential(Duration::from_millis(50), Duration::from_secs(1))?)
///     .breaker(CircuitBreaker::new("payments", BreakerConfig::default())?)
///     .bulkhead(Bulkhead::new(BulkheadConfig::at_once(64))?);
///
/// let answer = payments.run(Deadline::NONE, |_attempt| async { Ok::<_, Error>("paid") }).await?;
/// assert_eq!(answer, "paid");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pipeline {
    timeout: Option<Duration>,
    retry: RetryPolicy,
    hedge: Option<HedgeConfig>,
    breaker: Option<CircuitBreaker>,
    bulkhead: Option<Bulkhead>,
    clock: SharedClock,
    rng: SharedRng,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
struct Until {
    deadline: Deadline,
    /// The pipeline's own time, if that ends before the caller's.
    own: Option<Duration>,
}

/// A call that was dropped because its time was up.
#[derive(Debug)]
struct Late {
    rejection: Rejection,
    /// Whether that is the dependency's fault.
    outcome: Outcome,
}

/// What may be done more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// Nothing: one attempt, neither retried nor hedged.
    Never,
    /// What has not reached the other side, which the error must know: [`Classify::retry`] says `Never` for all else.
    /// Neither hedged, nor repeated after a time-out.
    Unsent,
    /// Everything: it is idempotent.
    Always,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Pipeline {
    /// Guards nothing yet.
    pub fn new() -> Self {
        Self {
            timeout: None,
            retry: RetryPolicy::none(),
            hedge: None,
            breaker: None,
            bulkhead: None,
            clock: SystemClock::shared(),
            rng: SharedRng::from_os(),
        }
    }

    /// How long everything together may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Tries again under a policy.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Asks again when an attempt is late. Only for what may be done twice.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn hedge(mut self, config: HedgeConfig) -> Result<Self, PolicyError> {
        config.check()?;
        self.hedge = Some(config);
        Ok(self)
    }

    /// Stops calling what does not answer.
    #[must_use]
    pub fn breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Bounds how many calls are under way.
    #[must_use]
    pub fn bulkhead(mut self, bulkhead: Bulkhead) -> Self {
        self.bulkhead = Some(bulkhead);
        self
    }

    /// The retry policy.
    pub fn retry_policy(&self) -> &RetryPolicy {
        &self.retry
    }

    /// Another clock and source of jitter, for tests.
    #[must_use]
    pub fn on(mut self, clock: SharedClock, rng: SharedRng) -> Self {
        (self.clock, self.rng) = (clock, rng);
        self
    }

    /// Makes a call under all guards. The operation gets the number of the attempt, from 1.
    ///
    /// What counts against the breaker is decided by what an error means ([`Outcome::of`]). An attempt that its own
    /// time-out ends is a failure of the dependency, and so is one that the pipeline's ends, if it had at least half of
    /// that time: attempts before it and the wait for a place may have left it less. One that the caller's deadline ends
    /// is not, for a caller could choose any.
    ///
    /// Cancel-safe: dropped, it drops the attempt, gives back its place and counts as cancelled.
    ///
    /// # Errors
    /// [`Guarded`]: turned away, or the last attempt's own error.
    pub async fn run<T, E, W>(
        &self,
        deadline: Deadline,
        operation: impl Fn(u32) -> W,
    ) -> Result<T, Guarded<E>>
    where
        E: Classify,
        W: Future<Output = Result<T, E>>,
    {
        self.run_with(Repeat::Always, deadline, operation).await
    }

    /// The same for a piece of work: until its deadline, and with one attempt when its caller asks again by itself,
    /// for retries at every hop of a chain multiply.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_for<T, E, W>(
        &self,
        context: &Context,
        operation: impl Fn(u32) -> W,
    ) -> Result<T, Guarded<E>>
    where
        E: Classify,
        W: Future<Output = Result<T, E>>,
    {
        let repeat = if context.caller_retries { Repeat::Never } else { Repeat::Always };
        self.run_with(repeat, context.deadline, operation).await
    }

    /// The same for what may not simply be done twice.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with<T, E, W>(
        &self,
        repeat: Repeat,
        deadline: Deadline,
        operation: impl Fn(u32) -> W,
    ) -> Result<T, Guarded<E>>
    where
        E: Classify,
        W: Future<Output = Result<T, E>>,
    {
        let clock = &*self.clock;
        let until = self.until(deadline);
        if until.deadline.is_expired(clock) {
            return Err(Rejection::DeadlinePassed.into());
        }
        // A hedge is taken from the budget as well, which must know of the call then.
        if repeat == Repeat::Never || (self.retry.max_attempts() == 1 && self.hedge.is_none()) {
            return self.attempt(repeat, until, 1, &operation).await;
        }
        let mut waits = Waits::new(&self.retry, clock, self.rng.clone());
        let mut attempt = 1;
        loop {
            let error = match self.attempt(repeat, until, attempt, &operation).await {
                Ok(value) => {
                    waits.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            let verdict = match &error {
                Guarded::Rejected(Rejection::TimedOut { .. }) if repeat == Repeat::Always => Retry::Backoff,
                Guarded::Rejected(_) => Retry::Never,
                Guarded::Failed(error) => error.retry(),
            };
            match waits.after(attempt, verdict, until.deadline.remaining(clock)) {
                Ok(wait) => {
                    // Let go before the wait: it may hold what the next attempt needs.
                    drop(error);
                    clock.sleep(wait).await;
                }
                Err(_) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// The same with something in place of an answer that does not come.
    ///
    /// # Errors
    /// What the fallback answers with.
    pub async fn run_or<T, E, W>(
        &self,
        deadline: Deadline,
        operation: impl Fn(u32) -> W,
        fallback: impl AsyncFnOnce(Guarded<E>) -> Result<T, Guarded<E>>,
    ) -> Result<T, Guarded<E>>
    where
        E: Classify,
        W: Future<Output = Result<T, E>>,
    {
        match self.run(deadline, operation).await {
            Ok(value) => Ok(value),
            Err(error) => fallback(error).await,
        }
    }

    /// The caller's deadline and the pipeline's own, whichever is earlier.
    fn until(&self, deadline: Deadline) -> Until {
        let bounds = [self.timeout, self.retry.total_timeout()];
        let own = bounds.into_iter().flatten().min();
        let ours = own.map_or(Deadline::NONE, |own| Deadline::after(&*self.clock, own));
        let earlier = |ours| deadline.instant().is_none_or(|theirs| ours < theirs);
        Until { deadline: deadline.narrow(ours), own: own.filter(|_| ours.instant().is_some_and(earlier)) }
    }

    async fn attempt<T, E, W>(
        &self,
        repeat: Repeat,
        until: Until,
        attempt: u32,
        operation: &impl Fn(u32) -> W,
    ) -> Result<T, Guarded<E>>
    where
        E: Classify,
        W: Future<Output = Result<T, E>>,
    {
        match self.hedge.filter(|_| repeat == Repeat::Always) {
            None => self.guarded(until, || operation(attempt)).await,
            Some(config) => {
                let budget = self.retry.budget().map(|budget| &**budget);
                let again = |_| self.guarded(until, || operation(attempt));
                let may_pass = |error: &Guarded<E>| match error {
                    Guarded::Rejected(rejection) => matches!(rejection, Rejection::TimedOut { .. }),
                    Guarded::Failed(error) => error.retry() != Retry::Never,
                };
                hedge_while(may_pass, config, &*self.clock, until.deadline, budget, again).await
            }
        }
    }

    async fn guarded<T, E, W>(&self, until: Until, work: impl FnOnce() -> W) -> Result<T, Guarded<E>>
    where
        E: Classify,
        W: Future<Output = Result<T, E>>,
    {
        let mut permit = self.breaker.as_ref().map(CircuitBreaker::acquire).transpose()?;
        let _place = match &self.bulkhead {
            Some(bulkhead) => {
                let place = bulkhead.enter(&*self.clock, until.deadline).await?;
                // Our own queue does not make the dependency slow.
                permit.iter_mut().for_each(Permit::begin_now);
                Some(place)
            }
            None => None,
        };
        let result = self.timed(until, work()).await;
        if let Some(permit) = permit {
            permit.record(match &result {
                Ok(Ok(_)) => Outcome::Success,
                Ok(Err(error)) => Outcome::of_kind(error.kind()),
                Err(late) => late.outcome,
            });
        }
        match result {
            Ok(answer) => answer.map_err(Guarded::Failed),
            Err(late) => Err(late.rejection.into()),
        }
    }

    async fn timed<W: Future>(&self, until: Until, work: W) -> Result<W::Output, Late> {
        let clock = &*self.clock;
        let left = until.deadline.remaining(clock);
        let own = self.retry.attempt_timeout().filter(|own| left.is_none_or(|left| *own < left));
        let bound = own.map_or(until.deadline, |own| Deadline::after(clock, own));
        bound.run(clock, work).await.map_err(|_| match (own, until.own) {
            (Some(after), _) => Late { rejection: Rejection::TimedOut { after }, outcome: Outcome::Failure },
            (None, Some(after)) => {
                let fair = left.is_none_or(|left| left >= after / 2);
                let outcome = if fair { Outcome::Failure } else { Outcome::Ignored };
                Late { rejection: Rejection::TimedOut { after }, outcome }
            }
            (None, None) => Late { rejection: Rejection::DeadlinePassed, outcome: Outcome::Ignored },
        })
    }
}
