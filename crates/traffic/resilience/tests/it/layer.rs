//! The `tower` layer keeps tower's contract.

use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use runtime_kernel::{Clock, Retry, SystemClock};
use runtime_resilience::{
    BudgetConfig, HedgeConfig, HedgeLayer, Jitter, Replay, RetryBudget, RetryLayer, RetryPolicy, SharedRng,
};
use tower::{Layer, Service, ServiceExt};

/// Refuses calls on an instance that was not polled ready, clones included.
struct Strict {
    ready: bool,
    log: Arc<Mutex<Vec<u32>>>,
    fail_first: usize,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, log: Arc::clone(&self.log), fail_first: self.fail_first }
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = &'static str;
    type Future = std::future::Ready<Result<u32, &'static str>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), &'static str>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being polled ready");
        let mut log = self.log.lock().unwrap();
        log.push(request);
        std::future::ready(if log.len() <= self.fail_first { Err("down") } else { Ok(request) })
    }
}

#[derive(Clone)]
struct Even;

impl Replay<u32, u32, &'static str> for Even {
    fn again(&self, request: &u32) -> Option<u32> {
        request.is_multiple_of(2).then_some(*request)
    }

    fn verdict(&self, answer: &Result<u32, &'static str>) -> Option<Retry> {
        answer.is_err().then_some(Retry::Backoff)
    }

    fn timed_out(&self, _: Duration) -> &'static str {
        "timed out"
    }
}

fn layer(attempts: u32) -> RetryLayer<Even> {
    let policy = RetryPolicy::constant(Duration::from_secs(1)).unwrap().with_jitter(Jitter::None).unwrap();
    let policy =
        policy.with_attempt_timeout(Duration::from_secs(5)).unwrap().with_max_attempts(attempts).unwrap();
    RetryLayer::new(policy, SystemClock::shared(), SharedRng::seeded(1), Even)
}

fn strict(fail_first: usize) -> Strict {
    Strict { ready: false, log: Arc::default(), fail_first }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_on_a_ready_service() {
    let inner = strict(2);
    let (log, start) = (Arc::clone(&inner.log), SystemClock.now());
    let mut service = layer(3).layer(inner);
    assert_eq!(service.ready().await.unwrap().call(4).await, Ok(4));
    assert_eq!(*log.lock().unwrap(), [4, 4, 4]);
    assert_eq!(SystemClock.now() - start, Duration::from_secs(2));
    assert_eq!(service.ready().await.unwrap().call(6).await, Ok(6), "the service is usable again");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_repeated_is_tried_once() {
    let inner = strict(9);
    let log = Arc::clone(&inner.log);
    assert_eq!(layer(3).layer(inner).oneshot(5).await, Err("down"));
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_is_passed_on() {
    let inner = strict(9);
    let log = Arc::clone(&inner.log);
    assert_eq!(layer(3).layer(inner).oneshot(4).await, Err("down"));
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_attempt_is_cut() {
    let hang = tower::service_fn(|_: u32| std::future::pending::<Result<u32, &'static str>>());
    let start = SystemClock.now();
    assert_eq!(layer(2).layer(hang).oneshot(2).await, Err("timed out"));
    assert_eq!(SystemClock.now() - start, Duration::from_secs(11));
}

/// The first call is late by 500 ms, the others answer at once.
fn late() -> impl Service<u32, Response = u32, Error = &'static str, Future: Send> + Clone + Send {
    let asked = Arc::new(Mutex::new(0));
    tower::service_fn(move |request: u32| {
        let nth = {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            *asked
        };
        async move {
            if nth == 1 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Ok(request * 10 + nth)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_asked_for_again_if_the_request_may_be_repeated_and_the_budget_allows() {
    let tokens = |capacity| {
        let config = BudgetConfig::Tokens { capacity, cost: 1, throttled_cost: 1 };
        Some(Arc::new(RetryBudget::new(config).unwrap()))
    };
    let spent = tokens(1);
    assert!(spent.as_ref().unwrap().spend(SystemClock.now(), Retry::Backoff));
    for (request, budget, answer, took) in
        [(2, None, 22, 100), (2, tokens(1), 22, 100), (3, None, 31, 500), (2, spent, 21, 500)]
    {
        let config = HedgeConfig::after(Duration::from_millis(100));
        let layer = HedgeLayer::new(config, budget, SystemClock::shared(), Even).unwrap();
        let start = SystemClock.now();
        assert_eq!(layer.layer(late()).oneshot(request).await, Ok(answer), "{request}");
        assert_eq!(SystemClock.now() - start, Duration::from_millis(took), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn hedged_attempts_are_made_on_ready_services_and_the_last_error_is_passed_on() {
    let layer =
        HedgeLayer::new(HedgeConfig::after(Duration::from_millis(1)), None, SystemClock::shared(), Even)
            .unwrap();
    let inner = strict(1);
    let log = Arc::clone(&inner.log);
    assert_eq!(layer.layer(inner).oneshot(4).await, Ok(4), "one that fails is made again at once");
    assert_eq!(log.lock().unwrap().len(), 2);
    assert_eq!(layer.layer(strict(9)).oneshot(4).await, Err("down"));
}

#[tokio::test(start_paused = true)]
async fn what_succeeds_fills_the_purse_that_hedges_take_from() {
    let config = BudgetConfig::Tokens { capacity: 2, cost: 2, throttled_cost: 2 };
    let budget = Some(Arc::new(RetryBudget::new(config).unwrap()));
    let config = HedgeConfig::after(Duration::from_millis(100));
    let layer = HedgeLayer::new(config, budget, SystemClock::shared(), Even).unwrap();
    for answer in [22, 21, 22] {
        assert_eq!(layer.layer(late()).oneshot(2).await, Ok(answer));
    }
}

#[test]
fn the_layer_can_cross_threads() {
    fn crosses<T: Send + Sync + Clone>() {}
    crosses::<RetryLayer<Even>>();
}

/// Ready for one call, and never again.
struct Once {
    left: u32,
}

impl Clone for Once {
    fn clone(&self) -> Self {
        Self { left: 0 }
    }
}

impl Service<u32> for Once {
    type Response = u32;
    type Error = &'static str;
    type Future = std::future::Ready<Result<u32, &'static str>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), &'static str>> {
        if self.left == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, _: u32) -> Self::Future {
        self.left -= 1;
        std::future::ready(Err("down"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_again_is_waited_for_until_the_deadline_only() {
    let policy = RetryPolicy::constant(Duration::from_secs(1)).unwrap();
    let policy =
        policy.with_jitter(Jitter::None).unwrap().with_total_timeout(Duration::from_secs(5)).unwrap();
    let layer = RetryLayer::new(policy, SystemClock::shared(), SharedRng::seeded(1), Even);
    let start = SystemClock.now();
    assert_eq!(layer.layer(Once { left: 1 }).oneshot(2).await, Err("timed out"));
    assert_eq!(SystemClock.now() - start, Duration::from_secs(5));
}
