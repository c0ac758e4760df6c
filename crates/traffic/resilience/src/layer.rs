//! Retries as a `tower` layer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use runtime_kernel::{Deadline, Retry, SharedClock};
use tower_layer::Layer;
use tower_service::Service;

use crate::budget::RetryBudget;
use crate::config::PolicyError;
use crate::hedge::{HedgeConfig, hedge};
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
        RetryService { inner, layer: Arc::new(self.clone()) }
    }
}

/// The service [`RetryLayer`] makes.
#[derive(Clone, Debug)]
pub struct RetryService<S, P> {
    inner: S,
    layer: Arc<RetryLayer<P>>,
}

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
    type Future = RetryFuture<S, P, Req, S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let layer = &self.layer;
        let began = layer.began(&request);
        let kept = (layer.policy.max_attempts() > 1).then(|| layer.replay.again(&request)).flatten();
        // The instance that was polled ready makes the first attempt; its clone waits for the next `poll_ready`.
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        if began.bound.is_some() {
            let first = ready.call(request);
            let bounded: Later<_, _> = Box::pin(run(ready, Arc::clone(layer), began, first, kept));
            return RetryFuture { first: None, rest: None, later: Some(bounded) };
        }
        let first = Some(ready.call(request));
        RetryFuture { first, rest: Some((ready, Arc::clone(layer), began, kept)), later: None }
    }
}

/// What is known when a call begins.
#[derive(Debug)]
struct Began {
    deadline: Deadline,
    /// How long the first attempt may take.
    bound: Option<Duration>,
}

impl<P> RetryLayer<P> {
    fn began<Req, Res, E>(&self, request: &Req) -> Began
    where
        P: Replay<Req, Res, E>,
    {
        let clock = &*self.clock;
        let mut deadline = self.replay.deadline(request);
        if let Some(total) = self.policy.total_timeout() {
            deadline = deadline.narrow(Deadline::after(clock, total));
        }
        if let Some(budget) = self.policy.budget().filter(|budget| budget.counts_calls()) {
            budget.called(clock.now());
        }
        Began { deadline, bound: self.bound(deadline) }
    }

    fn bound(&self, deadline: Deadline) -> Option<Duration> {
        match (self.policy.attempt_timeout(), deadline.remaining(&*self.clock)) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        }
    }
}

type Rest<S, P, Req> = (S, Arc<RetryLayer<P>>, Began, Option<Req>);

type Later<Res, E> = Pin<Box<dyn Future<Output = Result<Res, E>> + Send>>;

pin_project! {
    /// The future of [`RetryService`]. A first attempt that succeeds, and that nothing bounds, costs no allocation.
    pub struct RetryFuture<S, P, Req, F, Res, E> {
        #[pin]
        first: Option<F>,
        rest: Option<Rest<S, P, Req>>,
        later: Option<Later<Res, E>>,
    }
}

impl<S, P, Req, F, Res, E> Future for RetryFuture<S, P, Req, F, Res, E>
where
    S: Service<Req, Response = Res, Error = E, Future = F> + Send + 'static,
    F: Future<Output = Result<Res, E>> + Send,
    Res: Send,
    E: Send,
    P: Replay<Req, Res, E> + Sync,
    Req: Send + 'static,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<Res, E>> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut() {
            let answer = ready!(first.poll(cx));
            let Some((service, layer, began, kept)) = this.rest.take() else { return Poll::Ready(answer) };
            let verdict = layer.judged(&answer);
            let (Some(verdict), Some(kept)) = (verdict, kept) else { return Poll::Ready(answer) };
            this.first.set(None);
            *this.later = Some(Box::pin(again(service, layer, began.deadline, answer, verdict, kept)));
        }
        this.later.as_mut().map_or(Poll::Pending, |later| later.as_mut().poll(cx))
    }
}

/// The first attempt, bounded, and whatever follows.
async fn run<S, P, Req>(
    service: S,
    layer: Arc<RetryLayer<P>>,
    began: Began,
    first: S::Future,
    kept: Option<Req>,
) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
    P: Replay<Req, S::Response, S::Error>,
{
    let answer = layer.bounded(began.bound, first).await;
    match (layer.judged(&answer), kept) {
        (Some(verdict), Some(kept)) => again(service, layer, began.deadline, answer, verdict, kept).await,
        _ => answer,
    }
}

/// What follows when an attempt has failed and may be made again.
async fn again<S, P, Req>(
    mut service: S,
    layer: Arc<RetryLayer<P>>,
    deadline: Deadline,
    mut answer: Result<S::Response, S::Error>,
    mut verdict: Retry,
    mut next: Req,
) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
    P: Replay<Req, S::Response, S::Error>,
{
    let clock = &*layer.clock;
    let mut waits = Waits::resumed(&layer.policy, clock, layer.rng.clone());
    for attempt in 1.. {
        let Ok(wait) = waits.after(attempt, verdict, deadline.remaining(clock)) else { return answer };
        // The answer is let go before the wait: it may hold a connection or a permit the next attempt needs.
        drop(answer);
        clock.sleep(wait).await;
        let ready = std::future::poll_fn(|cx| service.poll_ready(cx));
        layer.bounded(deadline.remaining(clock), ready).await?;
        let more = attempt + 1 < layer.policy.max_attempts();
        let kept = more.then(|| layer.replay.again(&next)).flatten();
        let call = service.call(next);
        answer = layer.bounded(layer.bound(deadline), call).await;
        let Some(failed) = layer.replay.verdict(&answer) else {
            waits.succeeded();
            return answer;
        };
        let Some(kept) = kept else { return answer };
        (verdict, next) = (failed, kept);
    }
    answer
}

impl<P> RetryLayer<P> {
    /// The verdict on a first attempt; nothing when it is to be passed on.
    fn judged<Req, Res, E>(&self, answer: &Result<Res, E>) -> Option<Retry>
    where
        P: Replay<Req, Res, E>,
    {
        let verdict = self.replay.verdict(answer);
        if verdict.is_none()
            && let Some(budget) = self.policy.budget()
        {
            budget.succeeded();
        }
        verdict
    }

    async fn bounded<T, Req, Res, E>(
        &self,
        bound: Option<Duration>,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        P: Replay<Req, Res, E>,
    {
        let Some(bound) = bound else { return call.await };
        let clock = &*self.clock;
        match Deadline::after(clock, bound).run(clock, call).await {
            Ok(answer) => answer,
            Err(_) => Err(self.replay.timed_out(bound)),
        }
    }
}

/// Asks a second service of the same kind when the first is late, and takes the first answer. Only requests that
/// [`Replay::again`] repeats are hedged; what is asked again is taken from a budget.
#[derive(Clone, Debug)]
pub struct HedgeLayer<P> {
    config: HedgeConfig,
    budget: Option<Arc<RetryBudget>>,
    clock: SharedClock,
    replay: P,
}

impl<P> HedgeLayer<P> {
    /// A layer over its parts.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(
        config: HedgeConfig,
        budget: Option<Arc<RetryBudget>>,
        clock: SharedClock,
        replay: P,
    ) -> Result<Self, PolicyError> {
        config.check()?;
        Ok(Self { config, budget, clock, replay })
    }
}

impl<S, P: Clone> Layer<S> for HedgeLayer<P> {
    type Service = HedgeService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService { inner, layer: Arc::new(self.clone()) }
    }
}

/// The service [`HedgeLayer`] makes.
#[derive(Clone, Debug)]
pub struct HedgeService<S, P> {
    inner: S,
    layer: Arc<HedgeLayer<P>>,
}

impl<S, P, Req> Service<Req> for HedgeService<S, P>
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
    type Future = Later<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let layer = Arc::clone(&self.layer);
        let (fresh, deadline) = (self.inner.clone(), layer.replay.deadline(&request));
        let mut first = std::mem::replace(&mut self.inner, fresh.clone());
        if let Some(budget) = layer.budget.as_deref().filter(|budget| budget.counts_calls()) {
            budget.called(layer.clock.now());
        }
        // What may not be repeated is kept nowhere, and asked once.
        let Some(kept) = layer.replay.again(&request) else { return Box::pin(first.call(request)) };
        let mut ready = Some((first, request));
        Box::pin(async move {
            let replay = layer.replay.clone();
            let attempt = move |_| {
                let ready = ready.take();
                let again = if ready.is_none() { replay.again(&kept) } else { None };
                let again = again.map(|request| (fresh.clone(), request));
                async move {
                    if let Some((mut service, request)) = ready {
                        return service.call(request).await.map_err(Some);
                    }
                    // It could be repeated before; one that cannot be any more ends its own attempt alone.
                    let (mut service, request) = again.ok_or(None)?;
                    std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Some)?;
                    service.call(request).await.map_err(Some)
                }
            };
            let answer = hedge(layer.config, &*layer.clock, deadline, layer.budget.as_deref(), attempt).await;
            let answer =
                answer.map_err(|error| error.unwrap_or_else(|| layer.replay.timed_out(Duration::ZERO)));
            if let Some(budget) = layer.budget.as_deref().filter(|_| layer.replay.verdict(&answer).is_none())
            {
                budget.succeeded();
            }
            answer
        })
    }
}
