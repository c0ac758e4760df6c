//! Retries as a `tower` layer.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use runtime_kernel::{Deadline, Retry, SharedClock};
use tower::{Layer, Service};

use crate::jitter::SharedRng;
use crate::policy::RetryPolicy;
use crate::run::Waits;

/// What the layer must know about requests and answers.
pub trait Replay<Req, Res, E>: Clone + Send + 'static {
    /// The request again, for a later attempt. `None` when it cannot or must not be repeated: its body is a stream,
    /// or it is not idempotent.
    fn again(&self, request: &Req) -> Option<Req>;

    /// The verdict on an answer: `None` when it is to be passed on as it is.
    fn verdict(&self, answer: &Result<Res, E>) -> Option<Retry>;

    /// When the answer stops being useful. No limit unless told.
    fn deadline(&self, _request: &Req) -> Deadline {
        Deadline::NONE
    }

    /// The error for an attempt that took longer than the policy's `attempt_timeout`, or past the deadline.
    fn timed_out(&self, after: Duration) -> E;
}

/// A `tower` layer that retries under a policy. Every attempt is made on a service that has said it is ready.
#[derive(Clone, Debug)]
pub struct RetryLayer<P> {
    policy: RetryPolicy,
    clock: SharedClock,
    rng: SharedRng,
    replay: P,
}

impl<P> RetryLayer<P> {
    /// A layer over its parts.
    pub fn new(policy: RetryPolicy, clock: SharedClock, rng: SharedRng, replay: P) -> Self {
        Self { policy, clock, rng, replay }
    }
}

impl<S, P: Clone> Layer<S> for RetryLayer<P> {
    type Service = RetryService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService { inner, layer: self.clone() }
    }
}

/// The service [`RetryLayer`] makes.
#[derive(Clone, Debug)]
pub struct RetryService<S, P> {
    inner: S,
    layer: RetryLayer<P>,
}

/// The future of [`RetryService`].
pub type RetryFuture<Res, E> = Pin<Box<dyn Future<Output = Result<Res, E>> + Send>>;

impl<S, P, Req> Service<Req> for RetryService<S, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    P: Replay<Req, S::Response, S::Error> + Sync,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The instance that was polled ready makes the first attempt; its clone waits for the next `poll_ready`.
        let fresh = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, fresh);
        Box::pin(run(ready, self.layer.clone(), request))
    }
}

async fn run<S, P, Req>(mut service: S, layer: RetryLayer<P>, request: Req) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
    P: Replay<Req, S::Response, S::Error>,
{
    let RetryLayer { policy, clock, rng, replay } = layer;
    let clock = &*clock;
    let mut deadline = replay.deadline(&request);
    if let Some(total) = policy.total_timeout() {
        deadline = deadline.narrow(Deadline::after(clock, total));
    }
    let mut waits = Waits::new(&policy, clock, rng);
    let (mut next, mut attempt) = (request, 0);
    loop {
        attempt += 1;
        let kept = if attempt < policy.max_attempts() { replay.again(&next) } else { None };
        let left = deadline.remaining(clock);
        let bound = match (policy.attempt_timeout(), left) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        };
        let call = service.call(next);
        let answer = match bound {
            None => call.await,
            Some(bound) => match Deadline::after(clock, bound).run(clock, call).await {
                Ok(answer) => answer,
                Err(_) => Err(replay.timed_out(bound)),
            },
        };
        let verdict = replay.verdict(&answer);
        if verdict.is_none() {
            waits.succeeded();
        }
        let (Some(again), Some(verdict)) = (kept, verdict) else { return answer };
        let Ok(wait) = waits.after(attempt, verdict, deadline.remaining(clock)) else { return answer };
        // The answer is let go before the wait: it may hold a connection or a permit the next attempt needs.
        drop(answer);
        clock.sleep(wait).await;
        std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
        next = again;
    }
}
