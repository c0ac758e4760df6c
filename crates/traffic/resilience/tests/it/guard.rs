//! The guards as `tower` layers keep tower's contract.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use runtime_kernel::{Clock, Deadline, SystemClock};
use runtime_resilience::{
    BreakerConfig, BreakerLayer, BreakerState, Bulkhead, BulkheadConfig, BulkheadLayer, CircuitBreaker,
    Judge, Outcome, Rejection, SharedRng, TimeoutLayer,
};
use tower::{Layer, Service, ServiceExt};

type Answer = Result<u32, String>;

#[derive(Clone)]
struct ByStatus;

/// 500 and above is the server's fault, although it is an answer.
impl Judge<u32, String> for ByStatus {
    fn outcome(&self, answer: &Answer) -> Outcome {
        match answer {
            Ok(status) if *status < 500 => Outcome::Success,
            _ => Outcome::Failure,
        }
    }

    fn turned_away(&self, rejection: Rejection) -> Answer {
        Err(rejection.to_string())
    }
}

/// Answers with what it is asked for; 0 never answers. Refuses calls on an instance that was not polled ready.
#[derive(Default)]
struct Strict {
    polled: bool,
    ready: Arc<AtomicU32>,
    called: Arc<AtomicU32>,
}

impl Strict {
    fn never_ready() -> Self {
        Self { ready: Arc::new(AtomicU32::new(1)), ..Self::default() }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { polled: false, ready: Arc::clone(&self.ready), called: Arc::clone(&self.called) }
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = String;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), String>> {
        if self.ready.load(Ordering::Relaxed) > 0 {
            return Poll::Pending;
        }
        self.polled = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, status: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.polled), "called without being polled ready");
        self.called.fetch_add(1, Ordering::Relaxed);
        if status == 0 { Box::pin(pending()) } else { Box::pin(std::future::ready(Ok(status))) }
    }
}

fn breaker(failures: u32) -> CircuitBreaker {
    let config = BreakerConfig::consecutive(failures);
    CircuitBreaker::with("b", config, SystemClock::shared(), SharedRng::seeded(1), |_| {}).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_breaker_judges_by_the_answer_and_what_the_layer_makes_shares_it() {
    let layer = BreakerLayer::new(breaker(2), ByStatus);
    let strict = Strict::default();
    for _ in 0..2 {
        assert_eq!(layer.layer(strict.clone()).oneshot(503).await, Ok(503));
    }
    let refused = layer.layer(strict.clone()).oneshot(200).await;
    assert_eq!(refused, Err("the circuit breaker is open".to_owned()));
    assert_eq!(strict.called.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_ready_although_the_inner_service_is_not() {
    let breaker = breaker(1);
    let mut service = BreakerLayer::new(breaker.clone(), ByStatus).layer(Strict::never_ready());
    let poll = |service: &mut dyn FnMut(&mut TaskContext<'_>) -> bool| {
        service(&mut TaskContext::from_waker(std::task::Waker::noop()))
    };
    assert!(!poll(&mut |cx| service.poll_ready(cx).is_ready()), "closed: the inner one decides");
    breaker.force_open();
    assert!(poll(&mut |cx| service.poll_ready(cx).is_ready()));
    breaker.reset();
    let answer = service.call(200).await;
    assert!(answer.is_err(), "the inner one was never ready, so it is not called: {answer:?}");
    assert_eq!(breaker.snapshot().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_counts_as_cancelled() {
    let breaker = breaker(1);
    let layer = BreakerLayer::new(breaker.clone(), ByStatus);
    let dropped =
        tokio::time::timeout(Duration::from_secs(1), layer.layer(Strict::default()).oneshot(0)).await;
    assert!(dropped.is_err());
    assert_eq!((breaker.state(), breaker.snapshot().calls), (BreakerState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_turns_away_what_is_too_much() {
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1)).unwrap();
    let layer = BulkheadLayer::new(bulkhead.clone(), ByStatus);
    let mut service = layer.layer(Strict::default());
    let held = service.ready().await.unwrap().call(0);
    let refused = layer.layer(Strict::default()).oneshot(200).await;
    assert_eq!(refused, Err("too many calls are under way".to_owned()));
    drop(held);
    assert_eq!((layer.layer(Strict::default()).oneshot(200).await, bulkhead.under_way()), (Ok(200), 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_dropped_when_its_time_is_up_and_not_begun_when_nobody_waits() {
    let at = |left: Option<u64>| {
        left.map_or(Deadline::NONE, |left| Deadline::after(&SystemClock, Duration::from_secs(left)))
    };
    for (timeout, left, took, called, expected) in [
        (Some(2), None, 2, 1, "the call took longer than 2s"),
        (Some(2), Some(1), 1, 1, "the deadline has passed"),
        (None, Some(1), 1, 1, "the deadline has passed"),
        (Some(2), Some(0), 0, 0, "the deadline has passed"),
    ] {
        let (strict, start) = (Strict::default(), SystemClock.now());
        let deadline = at(left);
        let timeout = timeout.map(Duration::from_secs);
        let layer = TimeoutLayer::new(timeout, SystemClock::shared(), ByStatus, move |_: &u32| deadline);
        let answer = layer.layer(strict.clone()).oneshot(0).await;
        assert_eq!(answer, Err(expected.to_owned()), "{timeout:?} {left:?}");
        assert_eq!((SystemClock.now() - start).as_secs(), took);
        assert_eq!(strict.called.load(Ordering::Relaxed), called);
    }
    let layer = TimeoutLayer::new(None, SystemClock::shared(), ByStatus, |_: &u32| Deadline::NONE);
    assert_eq!(layer.layer(Strict::default()).oneshot(200).await, Ok(200));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stays_where_it_is_however_late_the_call_is_waited_for() {
    let deadline = Deadline::after(&SystemClock, Duration::from_secs(3));
    let layer = TimeoutLayer::new(None, SystemClock::shared(), ByStatus, move |_: &u32| deadline);
    let mut service = layer.layer(Strict::default());
    let (start, call) = (SystemClock.now(), service.ready().await.unwrap().call(0));
    SystemClock.sleep(Duration::from_secs(2)).await;
    assert_eq!(call.await, Err("the deadline has passed".to_owned()));
    assert_eq!(SystemClock.now() - start, Duration::from_secs(3));
}
