//! Breaker, bulkhead and time-out as `tower` layers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use runtime_kernel::{Clock, Deadline, SharedClock, Sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::breaker::{BreakerState, CircuitBreaker, Outcome, OwnedPermit};
use crate::bulkhead::{Bulkhead, Place};
use crate::rejection::Rejection;

/// What the layers must know about answers.
pub trait Judge<Res, E>: Clone {
    /// How the call went: by its answer, for a server that fails mostly still answers.
    fn outcome(&self, answer: &Result<Res, E>) -> Outcome;

    /// The answer in place of a call that was turned away.
    fn turned_away(&self, rejection: Rejection) -> Result<Res, E>;
}

/// Stops calling a service that does not answer. The state is the breaker's: every service the layer makes shares it.
///
/// While the breaker refuses calls the service is ready at once and turns them away, whether the inner one is ready or
/// not.
#[derive(Clone, Debug)]
pub struct BreakerLayer<J> {
    breaker: CircuitBreaker,
    judge: J,
}

impl<J> BreakerLayer<J> {
    /// A layer over a breaker.
    pub fn new(breaker: CircuitBreaker, judge: J) -> Self {
        Self { breaker, judge }
    }
}

impl<S, J: Clone> Layer<S> for BreakerLayer<J> {
    type Service = BreakerService<S, J>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService { inner, layer: self.clone(), ready: false }
    }
}

/// The service [`BreakerLayer`] makes.
#[derive(Debug)]
pub struct BreakerService<S, J> {
    inner: S,
    layer: BreakerLayer<J>,
    /// Whether the inner service has said it is ready.
    ready: bool,
}

/// A clone has not been polled ready, whatever the original was.
impl<S: Clone, J: Clone> Clone for BreakerService<S, J> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone(), ready: false }
    }
}

impl<S, J, Req> Service<Req> for BreakerService<S, J>
where
    S: Service<Req>,
    J: Judge<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future, OwnedPermit, S::Response, S::Error, J>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        if !self.ready {
            match self.inner.poll_ready(cx) {
                Poll::Pending if refuses(&self.layer.breaker) => return Poll::Ready(Ok(())),
                answer => ready!(answer)?,
            }
            self.ready = true;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let judge = self.layer.judge.clone();
        match self.layer.breaker.acquire_owned() {
            Ok(permit) if std::mem::take(&mut self.ready) => {
                GuardedFuture::passed(self.inner.call(request), permit, judge)
            }
            // It refused when this service was polled, and the inner one was not ready.
            Ok(_) => GuardedFuture::turned_away(&judge, Rejection::BreakerOpen { retry_after: None }),
            Err(rejection) => GuardedFuture::turned_away(&judge, rejection),
        }
    }
}

fn refuses(breaker: &CircuitBreaker) -> bool {
    matches!(breaker.state(), BreakerState::Open | BreakerState::ForcedOpen)
}

pin_project! {
    /// The future of a guarded call: what it holds is let go, and told how it went, when the answer is there.
    pub struct GuardedFuture<F, G, Res, E, J> {
        #[pin]
        inner: Option<F>,
        guard: Option<G>,
        judge: Option<J>,
        answer: Option<Result<Res, E>>,
    }
}

impl<F, G, Res, E, J: Judge<Res, E>> GuardedFuture<F, G, Res, E, J> {
    fn passed(inner: F, guard: G, judge: J) -> Self {
        Self { inner: Some(inner), guard: Some(guard), judge: Some(judge), answer: None }
    }

    fn turned_away(judge: &J, rejection: Rejection) -> Self {
        Self { inner: None, guard: None, judge: None, answer: Some(judge.turned_away(rejection)) }
    }
}

/// What is held during a call.
trait Release {
    fn release(self, outcome: impl FnOnce() -> Outcome);
}

impl Release for OwnedPermit {
    fn release(self, outcome: impl FnOnce() -> Outcome) {
        self.record(outcome());
    }
}

impl Release for Place {
    fn release(self, _: impl FnOnce() -> Outcome) {}
}

impl<F, G, Res, E, J> Future for GuardedFuture<F, G, Res, E, J>
where
    F: Future<Output = Result<Res, E>>,
    G: Release,
    J: Judge<Res, E>,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<Res, E>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return this.answer.take().map_or(Poll::Pending, Poll::Ready);
        };
        let answer = ready!(inner.poll(cx));
        if let (Some(guard), Some(judge)) = (this.guard.take(), this.judge.take()) {
            guard.release(|| judge.outcome(&answer));
        }
        Poll::Ready(answer)
    }
}

/// Turns away calls beyond those that may be under way. It does not wait, whatever the bulkhead allows: a service that
/// shall queue puts a [`Pipeline`](crate::Pipeline) around its calls.
#[derive(Clone, Debug)]
pub struct BulkheadLayer<J> {
    bulkhead: Bulkhead,
    judge: J,
}

impl<J> BulkheadLayer<J> {
    /// A layer over a bulkhead.
    pub fn new(bulkhead: Bulkhead, judge: J) -> Self {
        Self { bulkhead, judge }
    }
}

impl<S, J: Clone> Layer<S> for BulkheadLayer<J> {
    type Service = BulkheadService<S, J>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService { inner, layer: self.clone() }
    }
}

/// The service [`BulkheadLayer`] makes.
#[derive(Clone, Debug)]
pub struct BulkheadService<S, J> {
    inner: S,
    layer: BulkheadLayer<J>,
}

impl<S, J, Req> Service<Req> for BulkheadService<S, J>
where
    S: Service<Req>,
    J: Judge<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future, Place, S::Response, S::Error, J>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let judge = self.layer.judge.clone();
        match self.layer.bulkhead.enter_now() {
            Ok(place) => GuardedFuture::passed(self.inner.call(request), place, judge),
            Err(rejection) => GuardedFuture::turned_away(&judge, rejection),
        }
    }
}

/// Drops a call that takes longer than it may, and does not begin one nobody waits for.
///
/// `deadline` says when a request's answer stops being useful; the earlier of that and `timeout` counts.
#[derive(Clone, Debug)]
pub struct TimeoutLayer<J, D> {
    timeout: Option<Duration>,
    clock: SharedClock,
    judge: J,
    deadline: D,
}

impl<J, D> TimeoutLayer<J, D> {
    /// A layer with a time-out of its own, or none.
    pub fn new(timeout: Option<Duration>, clock: SharedClock, judge: J, deadline: D) -> Self {
        Self { timeout, clock, judge, deadline }
    }
}

impl<S, J: Clone, D: Clone> Layer<S> for TimeoutLayer<J, D> {
    type Service = TimeoutService<S, J, D>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService { inner, layer: self.clone() }
    }
}

/// The service [`TimeoutLayer`] makes.
#[derive(Clone, Debug)]
pub struct TimeoutService<S, J, D> {
    inner: S,
    layer: TimeoutLayer<J, D>,
}

impl<S, J, D, Req> Service<Req> for TimeoutService<S, J, D>
where
    S: Service<Req>,
    J: Judge<S::Response, S::Error>,
    D: Fn(&Req) -> Deadline,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TimeoutFuture<S::Future, J>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let TimeoutLayer { timeout, clock, judge, deadline } = &self.layer;
        let time = Time { own: *timeout, deadline: deadline(&request) };
        let late = time.left(&**clock).filter(|(left, _)| left.is_zero()).map(|(_, late)| late);
        let inner = if late.is_some() { None } else { Some(self.inner.call(request)) };
        TimeoutFuture { inner, time, late, timer: None, clock: clock.clone(), judge: judge.clone() }
    }
}

/// How long a call may take once it is waited for, and until when it is of use.
#[derive(Clone, Copy, Debug)]
struct Time {
    own: Option<Duration>,
    deadline: Deadline,
}

impl Time {
    /// What is left, if anything bounds it, and what to say when that is over.
    fn left(self, clock: &dyn Clock) -> Option<(Duration, Rejection)> {
        let left = self.deadline.remaining(clock);
        match self.own.filter(|own| left.is_none_or(|left| *own < left)) {
            Some(after) => Some((after, Rejection::TimedOut { after })),
            None => left.map(|left| (left, Rejection::DeadlinePassed)),
        }
    }
}

pin_project! {
    /// The future of [`TimeoutService`]. It sets a timer only once it has to wait: the layer's own time-out is counted
    /// from then, a deadline stays where it is.
    pub struct TimeoutFuture<F, J> {
        #[pin]
        inner: Option<F>,
        time: Time,
        late: Option<Rejection>,
        timer: Option<Sleep>,
        clock: SharedClock,
        judge: J,
    }
}

impl<F, J, Res, E> Future for TimeoutFuture<F, J>
where
    F: Future<Output = Result<Res, E>>,
    J: Judge<Res, E>,
{
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<Res, E>> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            if let Poll::Ready(answer) = inner.poll(cx) {
                return Poll::Ready(answer);
            }
            if this.timer.is_none() {
                let Some((left, late)) = this.time.left(&**this.clock) else { return Poll::Pending };
                (*this.timer, *this.late) = (Some(this.clock.sleep(left)), Some(late));
            }
        }
        if let Some(timer) = this.timer {
            ready!(timer.as_mut().poll(cx));
            // Whatever the call holds is let go before anybody hears of it.
            this.inner.set(None);
        }
        let late = this.late.unwrap_or(Rejection::DeadlinePassed);
        Poll::Ready(this.judge.turned_away(late))
    }
}
