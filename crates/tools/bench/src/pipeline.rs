//! Each layer over a service that is ready, and all of them together, beside tower's and tower-resilience's.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use runtime_kernel::{Deadline, Error, Retry, SystemClock};
use runtime_limits::{ConcurrencyLayer, LimitsConfig};
use runtime_resilience::{
    BreakerConfig, BreakerLayer, Bulkhead, BulkheadConfig, BulkheadLayer, CircuitBreaker, HedgeConfig,
    HedgeLayer, Judge, Outcome, Pipeline, Rejection, Replay, RetryLayer, RetryPolicy, SharedRng,
    TimeoutLayer,
};
use tower::{Layer, Service};
use tower_resilience::adaptive::{AdaptiveLimiterLayer as TheirAdaptive, Aimd};
use tower_resilience::bulkhead::BulkheadLayer as TheirBulkhead;
use tower_resilience::circuitbreaker::CircuitBreakerLayer;
use tower_resilience::hedge::HedgeLayer as TheirHedge;
use tower_resilience::retry::RetryLayer as TheirRetry;
use tower_resilience::timelimiter::TimeLimiterLayer;

use crate::breaker::{Answer, call};
use crate::measure::{interleave, nanos};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(60);

#[derive(Clone)]
struct Always;

impl Judge<u64, Infallible> for Always {
    fn outcome(&self, _: &Result<u64, Infallible>) -> Outcome {
        Outcome::Success
    }

    fn turned_away(&self, _: Rejection) -> Result<u64, Infallible> {
        Ok(0)
    }
}

impl Replay<u64, u64, Infallible> for Always {
    fn again(&self, request: &u64) -> Option<u64> {
        Some(*request)
    }

    fn verdict(&self, _: &Result<u64, Infallible>) -> Option<Retry> {
        None
    }

    fn timed_out(&self, _: Duration) -> Infallible {
        unreachable!("nothing takes long here")
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy::exponential(Duration::from_millis(10), Duration::from_secs(1)).expect("sound")
}

fn breaker() -> CircuitBreaker {
    let mut config = BreakerConfig::default();
    config.slow_call = Some(Duration::from_secs(1));
    CircuitBreaker::new("bench", config).expect("sound")
}

fn bulkhead() -> Bulkhead {
    Bulkhead::new(BulkheadConfig::at_once(1000)).expect("sound")
}

fn timeout() -> TimeoutLayer<Always, fn(&u64) -> Deadline> {
    let none: fn(&u64) -> Deadline = |_| Deadline::NONE;
    TimeoutLayer::new(Some(Duration::from_secs(30)), SystemClock::shared(), Always, none)
}

fn retry() -> RetryLayer<Always> {
    RetryLayer::new(policy(), SystemClock::shared(), SharedRng::from_os(), Always)
}

/// Drives a service in a loop that never waits.
fn drive<S: Service<u64>>(mut service: S) -> impl FnMut() -> f64 {
    move || nanos(WINDOW, || call(&mut service, black_box(7)))
}

/// Answers every request at once.
#[derive(Clone)]
struct Web;

impl Service<Request<String>> for Web {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_body())))
    }
}

fn limits() -> ConcurrencyLayer {
    ConcurrencyLayer::new(&LimitsConfig::default(), |_| None).expect("sound")
}

/// Drives a service of HTTP requests in a loop that never waits.
fn http<S: Service<Request<String>>>(mut service: S) -> impl FnMut() -> f64 {
    move || {
        nanos(WINDOW, || {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = service.poll_ready(&mut cx);
            let future = pin!(service.call(black_box(Request::new(String::new()))));
            black_box(future.poll(&mut cx).is_ready());
        })
    }
}

/// Each layer, the stack of all, and the pipeline as a function.
pub fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut bare = drive(Answer);
    let mut our_breaker = drive(BreakerLayer::new(breaker(), Always).layer(Answer));
    let mut our_bulkhead = drive(BulkheadLayer::new(bulkhead(), Always).layer(Answer));
    let mut our_timeout = drive(timeout().layer(Answer));
    let mut our_retry = drive(retry().layer(Answer));
    let hedge = HedgeLayer::new(HedgeConfig::default(), None, SystemClock::shared(), Always).expect("sound");
    let mut our_hedge = drive(hedge.layer(Answer));
    let mut our_limit = http(limits().layer(Web));
    let adaptive =
        TheirAdaptive::new(Aimd::builder().initial_limit(1000).max_limit(2000).build().expect("sound"));
    let mut tr_limit = http(adaptive.layer(Web));
    let mut tower_limit = http(tower::limit::ConcurrencyLimit::new(Web, 1000));
    let mut bare_web = http(Web);
    let stack = BulkheadLayer::new(bulkhead(), Always).layer(timeout().layer(Answer));
    let stack = retry().layer(BreakerLayer::new(breaker(), Always).layer(stack));
    let stack = timeout().layer(BulkheadLayer::new(bulkhead(), Always).layer(stack));
    let mut our_stack = drive(stack);

    let their_breaker = || CircuitBreakerLayer::builder().sliding_window_size(100).build().expect("sound");
    let their_bulkhead = || TheirBulkhead::builder().max_concurrent_calls(1000).build().expect("sound");
    let their_timeout = || TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(30)).build();
    let mut tr_breaker = drive(their_breaker().layer(Answer));
    let mut tr_bulkhead = drive(their_bulkhead().layer(Answer));
    let mut tr_timeout = drive(their_timeout().layer(Answer));
    let hedge = TheirHedge::builder().delay(Duration::from_millis(100)).build();
    let mut tr_hedge = drive(hedge.layer(Answer));
    let mut tr_retry = drive(TheirRetry::builder().max_attempts(3).build().layer(Answer));
    let stack = their_breaker().layer(their_bulkhead().layer(their_timeout().layer(Answer)));
    let stack = TheirRetry::builder().max_attempts(3).build().layer(stack);
    let mut tr_stack = drive(their_timeout().layer(their_bulkhead().layer(stack)));
    let mut tower_bulkhead = drive(tower::limit::ConcurrencyLimit::new(Answer, 1000));
    let mut tower_timeout = drive(tower::timeout::Timeout::new(Answer, Duration::from_secs(30)));

    let pipeline = Pipeline::new()
        .timeout(Duration::from_secs(30))
        .retry(policy().with_attempt_timeout(Duration::from_secs(10)).expect("sound"))
        .breaker(breaker())
        .bulkhead(bulkhead());
    let mut as_function = || {
        nanos(WINDOW, || {
            let mut cx = Context::from_waker(Waker::noop());
            let run = pin!(pipeline.run(Deadline::NONE, |n| std::future::ready(Ok::<u32, Error>(n))));
            assert!(matches!(run.poll(&mut cx), Poll::Ready(Ok(1))));
        })
    };
    let [bare, ob, obh, ot, or, os, tb, tbh, tt, tr, ts, wbh, wt, fun, oh, th, ol, tl, wl, bw] =
        interleave([
            &mut bare,
            &mut our_breaker,
            &mut our_bulkhead,
            &mut our_timeout,
            &mut our_retry,
            &mut our_stack,
            &mut tr_breaker,
            &mut tr_bulkhead,
            &mut tr_timeout,
            &mut tr_retry,
            &mut tr_stack,
            &mut tower_bulkhead,
            &mut tower_timeout,
            &mut as_function,
            &mut our_hedge,
            &mut tr_hedge,
            &mut our_limit,
            &mut tr_limit,
            &mut tower_limit,
            &mut bare_web,
        ]);
    drop(bare);
    // What a request and its answer cost by themselves is nobody's layer.
    let [ol, tl, wl] =
        [ol, tl, wl].map(|all| all.iter().zip(&bw).map(|(all, bare)| all - bare).collect::<Vec<_>>());
    let polly = vec![766.0; fun.len()];
    let row =
        |name, ours: &[f64], peer: (&str, &[f64])| Row::of("pipeline", name, "ns", Better::Less, ours, peer);
    vec![
        row("breaker layer", &ob, ("tower-resilience 0.13", &tb)),
        row("bulkhead layer", &obh, ("tower-resilience 0.13", &tbh)),
        row("bulkhead layer", &obh, ("tower 0.5 ConcurrencyLimit", &wbh)),
        row("time-out layer", &ot, ("tower-resilience 0.13", &tt)),
        row("time-out layer", &ot, ("tower 0.5 Timeout", &wt)),
        row("retry layer with budget", &or, ("tower-resilience 0.13", &tr)),
        row("hedging layer", &oh, ("tower-resilience 0.13", &th)),
        row("adaptive concurrency layer", &ol, ("tower-resilience 0.13 adaptive, AIMD", &tl)),
        row("adaptive concurrency layer", &ol, ("tower 0.5 ConcurrencyLimit, which learns nothing", &wl)),
        row("six layers", &os, ("tower-resilience 0.13, the same six", &ts)),
        row("six layers", &os, ("Polly v8, five strategies, as published", &polly)),
        row(
            "pipeline as a function: deadline, retry, budget, breaker, bulkhead, attempt time-out",
            &fun,
            ("Polly v8, five strategies, as published", &polly),
        ),
    ]
}
