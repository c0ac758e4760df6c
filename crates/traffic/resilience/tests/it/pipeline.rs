//! All guards around one call.

use std::cell::Cell;
use std::time::Duration;

use runtime_kernel::{Classify, Clock, Deadline, Error, ErrorKind, Retry, SystemClock};
use runtime_resilience::{
    BreakerConfig, BreakerState, BudgetConfig, Bulkhead, BulkheadConfig, CircuitBreaker, Guarded,
    HedgeConfig, Jitter, Pipeline, Pipelines, Rejection, ResilienceConfig, RetryPolicy, SharedRng,
};

const CLOCK: SystemClock = SystemClock;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pipeline() -> Pipeline {
    Pipeline::new().on(SystemClock::shared(), SharedRng::seeded(1))
}

fn every_second() -> RetryPolicy {
    RetryPolicy::constant(secs(1)).unwrap().with_jitter(Jitter::None).unwrap()
}

fn breaker(failures: u32) -> CircuitBreaker {
    CircuitBreaker::with(
        "b",
        BreakerConfig::consecutive(failures),
        SystemClock::shared(),
        SharedRng::seeded(1),
        |_| {},
    )
    .unwrap()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "down", "down")
}

async fn hang() -> Result<u32, Error> {
    CLOCK.sleep(secs(1_000)).await;
    Ok(0)
}

#[tokio::test(start_paused = true)]
async fn retries_pass_the_breaker_each_time_and_stop_when_it_opens() {
    let (breaker, calls) = (breaker(2), Cell::new(0));
    let pipeline = pipeline().retry(every_second().with_max_attempts(10).unwrap()).breaker(breaker.clone());
    let result = pipeline
        .run(Deadline::NONE, |_| {
            calls.set(calls.get() + 1);
            std::future::ready(Err::<u32, _>(down()))
        })
        .await;
    assert!(matches!(result, Err(Guarded::Rejected(Rejection::BreakerOpen { .. }))));
    assert_eq!((calls.get(), breaker.state()), (2, BreakerState::Open));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_counts_against_the_dependency_and_is_tried_again() {
    let breaker = breaker(3);
    let policy = every_second().with_attempt_timeout(secs(2)).unwrap();
    let pipeline = pipeline().retry(policy).breaker(breaker.clone());
    let start = CLOCK.now();
    let error = pipeline.run(Deadline::NONE, |_| hang()).await.unwrap_err();
    assert_eq!(error.code(), "call.timed_out");
    assert_eq!((CLOCK.now() - start, breaker.state()), (secs(2 + 1 + 2 + 1 + 2), BreakerState::Open));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_the_caller_chose_says_nothing_about_the_dependency() {
    let breaker = breaker(1);
    let pipeline = pipeline().breaker(breaker.clone());
    let error = pipeline.run(Deadline::after(&CLOCK, secs(1)), |_| hang()).await.unwrap_err();
    assert!(matches!(error, Guarded::Rejected(Rejection::DeadlinePassed)));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// A dependency that takes calls and never answers is found out by whatever bound of ours ends them.
#[tokio::test(start_paused = true)]
async fn a_time_the_pipeline_sets_counts_against_the_dependency() {
    let total = every_second().with_total_timeout(secs(2)).unwrap();
    let same = every_second().with_attempt_timeout(secs(2)).unwrap();
    for (what, pipeline, after) in [
        ("timeout", pipeline().timeout(secs(2)), 2),
        ("total_timeout", pipeline().retry(total.clone()), 2),
        ("the earlier of both", pipeline().timeout(secs(9)).retry(total), 2),
        ("as long as an attempt", pipeline().timeout(secs(2)).retry(same), 2),
    ] {
        let (breaker, start) = (breaker(1), CLOCK.now());
        let pipeline = pipeline.breaker(breaker.clone());
        let error = pipeline.run(Deadline::after(&CLOCK, secs(60)), |_| hang()).await.unwrap_err();
        assert!(matches!(error, Guarded::Rejected(Rejection::TimedOut { .. })), "{what}: {error:?}");
        assert_eq!((CLOCK.now() - start, breaker.state()), (secs(after), BreakerState::Open), "{what}");
        // Half-open, too: probes that hang open it again.
        CLOCK.sleep(secs(20)).await;
        for _ in 0..2 {
            pipeline.run(Deadline::NONE, |_| hang()).await.unwrap_err();
        }
        assert_eq!(breaker.state(), BreakerState::Open, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_left_too_little_time_says_nothing_about_the_dependency() {
    let breaker = breaker(1);
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1).waiting(1, secs(10))).unwrap();
    let pipeline = pipeline().timeout(secs(10)).bulkhead(bulkhead.clone()).breaker(breaker.clone());
    let place = bulkhead.enter_now().unwrap();
    let (error, ()) = tokio::join!(pipeline.run(Deadline::NONE, |_| hang()), async {
        CLOCK.sleep(secs(6)).await;
        drop(place);
    });
    assert!(matches!(error.unwrap_err(), Guarded::Rejected(Rejection::TimedOut { .. })));
    assert_eq!((breaker.state(), breaker.snapshot().calls), (BreakerState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_in_our_own_queue_does_not_make_a_dependency_slow() {
    let mut config = BreakerConfig::default();
    config.slow_call = Some(Duration::from_millis(100));
    let rng = SharedRng::seeded(1);
    let breaker = CircuitBreaker::with("b", config, SystemClock::shared(), rng, |_| {}).unwrap();
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1).waiting(10, secs(1))).unwrap();
    let pipeline = pipeline().bulkhead(bulkhead).breaker(breaker.clone());
    let call = || {
        pipeline.run(Deadline::NONE, |_| async {
            CLOCK.sleep(Duration::from_millis(50)).await;
            Ok::<_, Error>(())
        })
    };
    let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
    assert!([a, b, c, d].iter().all(Result::is_ok));
    assert_eq!((breaker.snapshot().calls, breaker.snapshot().slow), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_not_asked_again_by_a_hedge() {
    let budget = BudgetConfig::Tokens { capacity: 1, cost: 1, throttled_cost: 1 };
    let policy = every_second().with_budget(Some(budget)).unwrap();
    let breaker = breaker(1);
    let pipeline = pipeline().retry(policy.clone()).hedge(HedgeConfig::after(secs(1))).unwrap();
    let guarded = pipeline.clone().breaker(breaker.clone());
    breaker.force_open();
    guarded.run(Deadline::NONE, |_| hang()).await.unwrap_err();
    assert_eq!(breaker.snapshot().rejected, 1);
    let calls = Cell::new(0);
    let refused = pipeline.run(Deadline::NONE, |_| {
        calls.set(calls.get() + 1);
        std::future::ready(Err::<u32, _>(Error::new(ErrorKind::Invalid, "wrong", "wrong")))
    });
    assert_eq!(refused.await.unwrap_err().code(), "wrong");
    assert_eq!(calls.get(), 1);
    assert!(policy.budget().unwrap().spend(CLOCK.now(), Retry::Backoff), "nothing was taken from the budget");
}

/// Hedges are a share of the calls although none of them is retried.
#[tokio::test(start_paused = true)]
async fn a_hedge_without_retries_keeps_to_its_share_of_the_calls() {
    let budget = BudgetConfig::Share { ratio: 0.2, min_per_second: 0, window: secs(1_000) };
    let policy = every_second().with_max_attempts(1).unwrap().with_budget(Some(budget)).unwrap();
    let pipeline = pipeline().retry(policy).hedge(HedgeConfig::after(Duration::from_millis(1))).unwrap();
    let asked = Cell::new(0);
    for _ in 0..100 {
        let answer = pipeline.run(Deadline::NONE, |_| {
            asked.set(asked.get() + 1);
            async {
                CLOCK.sleep(Duration::from_millis(5)).await;
                Ok::<_, Error>(())
            }
        });
        answer.await.unwrap();
    }
    assert_eq!(asked.get(), 120);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_retried_nothing_is_hedged() {
    let config: ResilienceConfig = serde_json::from_value(serde_json::json!({
        "retries": false,
        "pipeline": { "p": { "retry": "default", "hedge": { "delay": "10ms" } } },
    }))
    .unwrap();
    let pipelines = Pipelines::new(&config, &SystemClock::shared(), &SharedRng::seeded(1), |_| {}).unwrap();
    let calls = Cell::new(0);
    let answer = pipelines.get("p").unwrap().run(Deadline::after(&CLOCK, secs(1)), |_| {
        calls.set(calls.get() + 1);
        hang()
    });
    answer.await.unwrap_err();
    assert_eq!(calls.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_nobody_waits_for_is_not_begun() {
    let deadline = Deadline::after(&CLOCK, secs(1));
    CLOCK.sleep(secs(1)).await;
    let result = pipeline().run(deadline, |_| async { panic!("begun") as Result<u32, Error> }).await;
    assert!(matches!(result, Err(Guarded::Rejected(Rejection::DeadlinePassed))));
}

#[tokio::test(start_paused = true)]
async fn everything_together_takes_no_longer_than_it_may() {
    let pipeline = pipeline().timeout(secs(5)).retry(every_second().with_max_attempts(100).unwrap());
    let start = CLOCK.now();
    let error =
        pipeline.run(Deadline::NONE, |_| std::future::ready(Err::<u32, _>(down()))).await.unwrap_err();
    assert_eq!(error.code(), "down", "the last real answer, not a time-out");
    assert_eq!(CLOCK.now() - start, secs(4), "the next wait would not have ended in time");
}

#[tokio::test(start_paused = true)]
async fn a_place_is_held_while_a_call_is_made_and_not_while_a_retry_waits() {
    let bulkhead = Bulkhead::new(BulkheadConfig::at_once(1)).unwrap();
    let pipeline = pipeline().retry(every_second()).bulkhead(bulkhead.clone());
    let call = pipeline.run(Deadline::NONE, |attempt| {
        assert_eq!(bulkhead.under_way(), 1);
        std::future::ready(if attempt == 1 { Err(down()) } else { Ok(attempt) })
    });
    let (result, free) = tokio::join!(call, async {
        CLOCK.sleep(Duration::from_millis(500)).await;
        bulkhead.enter_now().is_ok()
    });
    assert_eq!((result.unwrap(), free), (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_is_not_retried_and_says_nothing_about_the_dependency() {
    let (bulkhead, breaker) = (Bulkhead::new(BulkheadConfig::at_once(1)).unwrap(), breaker(1));
    let pipeline = pipeline().retry(every_second()).bulkhead(bulkhead.clone()).breaker(breaker.clone());
    let _place = bulkhead.enter_now().unwrap();
    let start = CLOCK.now();
    let error = pipeline.run(Deadline::NONE, |_| hang()).await.unwrap_err();
    assert!(matches!(error, Guarded::Rejected(Rejection::BulkheadFull)));
    assert_eq!((CLOCK.now() - start, breaker.state()), (Duration::ZERO, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_back_what_it_held() {
    let (bulkhead, breaker) = (Bulkhead::new(BulkheadConfig::at_once(1)).unwrap(), breaker(1));
    let pipeline = pipeline().bulkhead(bulkhead.clone()).breaker(breaker.clone());
    assert!(tokio::time::timeout(secs(1), pipeline.run(Deadline::NONE, |_| hang())).await.is_err());
    assert_eq!((bulkhead.under_way(), breaker.snapshot().calls), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_attempt_is_asked_again_beside_itself() {
    let pipeline = pipeline().hedge(HedgeConfig::after(secs(1))).unwrap();
    let calls = Cell::new(0);
    let result = pipeline
        .run(Deadline::NONE, |_| {
            calls.set(calls.get() + 1);
            let first = calls.get() == 1;
            async move { if first { hang().await } else { Ok(7) } }
        })
        .await;
    assert_eq!((result.unwrap(), calls.get()), (7, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_in_its_place() {
    let answer = pipeline()
        .run_or(
            Deadline::NONE,
            |_| std::future::ready(Err(down())),
            async |error| {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                Ok::<_, Guarded<Error>>("from yesterday")
            },
        )
        .await;
    assert_eq!(answer.unwrap(), "from yesterday");
}

#[tokio::test(start_paused = true)]
async fn pipelines_come_from_configuration_each_with_a_state_of_its_own() {
    let config: ResilienceConfig = serde_json::from_value(serde_json::json!({
        "retry": { "mine": { "max_attempts": 2, "base_delay": "1s", "max_delay": "1s", "jitter": "none" } },
        "pipeline": {
            "payments": { "timeout": "5s", "retry": "mine", "breaker": { "consecutive_failures": 2 } },
            "search": { "breaker": { "consecutive_failures": 2 }, "bulkhead": { "max_concurrent": 1 } },
        },
    }))
    .unwrap();
    let pipelines = Pipelines::new(&config, &SystemClock::shared(), &SharedRng::seeded(1), |_| {}).unwrap();
    let failed =
        pipelines.get("payments").unwrap().run(Deadline::NONE, |_| std::future::ready(Err::<(), _>(down())));
    assert_eq!(failed.await.unwrap_err().code(), "down");
    let states: Vec<_> = pipelines.breakers().map(|breaker| (breaker.name(), breaker.state())).collect();
    assert_eq!(states, [("payments", BreakerState::Open), ("search", BreakerState::Closed)]);
    assert!(pipelines.get("nosuch").is_none() && pipelines.breaker("search").is_some());
}

#[test]
fn a_pipeline_that_makes_no_sense_names_its_key() {
    for (pipeline, expected) in [
        (serde_json::json!({ "retry": "nosuch" }), "`pipeline.p.retry` names no retry policy: `nosuch`"),
        (serde_json::json!({ "timeout": "0s" }), "`pipeline.p.timeout` must not be 0"),
        (serde_json::json!({ "breaker": { "failure_rate": 2.0 } }), "`pipeline.p.breaker.failure_rate` must"),
        (
            serde_json::json!({ "bulkhead": { "max_concurrent": 0 } }),
            "`pipeline.p.bulkhead.max_concurrent` must",
        ),
        (serde_json::json!({ "hedge": { "max_attempts": 1 } }), "`pipeline.p.hedge.max_attempts` must"),
    ] {
        let config = serde_json::from_value(serde_json::json!({ "pipeline": { "p": pipeline } })).unwrap();
        let error =
            Pipelines::new(&config, &SystemClock::shared(), &SharedRng::seeded(1), |_| {}).unwrap_err();
        assert!(error.message().starts_with(expected), "{error}");
    }
}
