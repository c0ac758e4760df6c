//! Running operations under a policy.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use runtime_kernel::{Clock, Context, Deadline, Error, ErrorKind, Retry, Source, SystemClock};
use runtime_resilience::{Cause, Jitter, RetryConfig, RetryError, RetryPolicy, Stop, retry, retry_with};

const CLOCK: SystemClock = SystemClock;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "shop.down", "down")
}

fn every_second(attempts: u32) -> RetryPolicy {
    let policy = RetryPolicy::constant(secs(1)).unwrap().with_jitter(Jitter::None).unwrap();
    policy.with_max_attempts(attempts).unwrap()
}

async fn run(
    policy: &RetryPolicy,
    context: &Context,
    answer: impl Fn(u32) -> Result<u32, Error>,
) -> (Result<u32, RetryError<Error>>, u32, Duration) {
    let (calls, start) = (Cell::new(0), CLOCK.now());
    let result = retry(policy, &CLOCK, context, &mut StdRng::seed_from_u64(1), |attempt| {
        calls.set(calls.get() + 1);
        std::future::ready(answer(attempt))
    })
    .await;
    (result, calls.get(), CLOCK.now() - start)
}

fn context() -> Context {
    Context::new(Source::Internal, &CLOCK)
}

#[tokio::test(start_paused = true)]
async fn a_later_success_ends_the_run() {
    let (result, calls, took) =
        run(&every_second(5), &context(), |attempt| if attempt < 3 { Err(down()) } else { Ok(attempt) })
            .await;
    assert_eq!((result.unwrap(), calls, took), (3, 3, secs(2)));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_from_the_first_and_every_failure_is_kept() {
    let (result, calls, took) = run(&every_second(3), &context(), |_| Err(down())).await;
    let error = result.unwrap_err();
    assert_eq!((error.stop(), error.attempts(), calls, took), (Stop::Exhausted, 3, 3, secs(2)));
    let waits: Vec<_> = error.failures().map(|failure| (failure.attempt, failure.waited)).collect();
    assert_eq!(waits, [(1, Some(secs(1))), (2, Some(secs(1))), (3, None)]);
    assert_eq!(error.to_string(), "down (attempts used up after 3 attempts)");
    assert_eq!(Error::from(error).code(), "shop.down");
}

#[tokio::test(start_paused = true)]
async fn a_final_error_is_not_tried_again() {
    let (result, calls, took) = run(&every_second(3), &context(), |_| Err(Error::invalid("no"))).await;
    assert_eq!((result.unwrap_err().stop(), calls, took), (Stop::NotRetryable, 1, secs(0)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_pass_the_deadline_is_not_begun() {
    let context = context().with_deadline(Deadline::after(&CLOCK, Duration::from_millis(2500)));
    let (result, calls, took) = run(&every_second(9), &context, |_| Err(down())).await;
    let error = result.unwrap_err();
    assert_eq!((error.stop(), calls, took), (Stop::Deadline, 3, secs(2)));
    assert_eq!(Error::from(error).code(), "shop.down", "the last error comes back, not a time-out");
}

#[tokio::test(start_paused = true)]
async fn the_policys_own_total_counts_like_a_deadline() {
    let policy = every_second(9).with_total_timeout(Duration::from_millis(1500)).unwrap();
    let (result, calls, took) = run(&policy, &context(), |_| Err(down())).await;
    assert_eq!((result.unwrap_err().stop(), calls, took), (Stop::Deadline, 2, secs(1)));
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_past_a_deadline_that_has_passed() {
    let context = context().with_deadline(Deadline::after(&CLOCK, Duration::ZERO));
    let (result, calls, _) = run(&every_second(9), &context, |_| Ok(1)).await;
    let error = result.unwrap_err();
    assert_eq!((error.attempts(), calls), (0, 0));
    assert_eq!(Error::from(error).code(), "deadline.exceeded");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_within_the_policys_bound() {
    let policy = every_second(2).with_max_retry_after(secs(20)).unwrap();
    for (asked, waited) in [(0, 1), (7, 7), (20, 20), (3600, 20)] {
        let busy =
            |_| Err(Error::new(ErrorKind::RateLimited, "busy", "busy").with_retry(Retry::After(secs(asked))));
        let (_, calls, took) = run(&policy, &context(), busy).await;
        assert_eq!((calls, took), (2, secs(waited)), "asked for {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_first_immediate_retry_in_a_row_is_free() {
    let raced = |_| Err(Error::new(ErrorKind::Conflict, "raced", "raced").with_retry(Retry::Now));
    let (_, calls, took) = run(&every_second(4), &context(), raced).await;
    assert_eq!((calls, took), (4, secs(2)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_dropped_and_tried_again() {
    let policy = every_second(3).with_attempt_timeout(secs(5)).unwrap();
    let start = CLOCK.now();
    let result: Result<u32, _> =
        retry(&policy, &CLOCK, &context(), &mut StdRng::seed_from_u64(1), |attempt| async move {
            if attempt == 3 { Ok::<_, Error>(3) } else { std::future::pending().await }
        })
        .await;
    assert_eq!((result.unwrap(), CLOCK.now() - start), (3, secs(12)));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_cut_by_the_deadline_leaves_the_last_real_error() {
    let context = context().with_deadline(Deadline::after(&CLOCK, secs(3)));
    let error =
        retry(&every_second(9), &CLOCK, &context, &mut StdRng::seed_from_u64(1), |attempt| async move {
            if attempt == 1 { Err::<(), _>(down()) } else { std::future::pending().await }
        })
        .await
        .unwrap_err();
    assert_eq!((error.stop(), error.attempts()), (Stop::Deadline, 2));
    assert!(matches!(error.last(), Cause::Deadline));
    assert_eq!(Error::from(error).code(), "shop.down");
}

#[tokio::test(start_paused = true)]
async fn a_long_run_remembers_only_its_latest_failures() {
    let (result, ..) = run(&every_second(200), &context(), |_| Err(down())).await;
    let error = result.unwrap_err();
    assert_eq!((error.failures().count(), error.failures().last().unwrap().attempt), (32, 200));
}

proptest! {
    #[test]
    fn waits_never_pass_the_deadline(base in 1u64..5_000, attempts in 1u32..40, budget in 1u64..60_000, seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut config = RetryConfig::default();
            config.base_delay = Duration::from_millis(base);
            config.max_delay = Duration::from_millis(base * 8);
            config.max_attempts = attempts;
            let policy = RetryPolicy::new(config).unwrap();
            let (start, starts) = (CLOCK.now(), RefCell::new(Vec::new()));
            let deadline = Deadline::after(&CLOCK, Duration::from_millis(budget));
            let result: Result<(), RetryError<&str>> =
                retry_with(&policy, &CLOCK, deadline, &mut StdRng::seed_from_u64(seed), |_| Retry::Backoff, |_| {
                    starts.borrow_mut().push(CLOCK.now() - start);
                    std::future::ready(Err("down"))
                })
                .await;
            let waited: Duration = result.unwrap_err().failures().filter_map(|failure| failure.waited).sum();
            assert!(waited < Duration::from_millis(budget), "{waited:?} of {budget}");
            // The timer's own grain is a millisecond.
            assert!(starts.borrow().iter().all(|at| *at <= Duration::from_millis(budget + 1)));
        });
    }
}
