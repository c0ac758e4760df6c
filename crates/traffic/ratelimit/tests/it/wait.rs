//! Waiting for a turn.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Clock, Deadline, SystemClock};
use runtime_ratelimit::{LimitError, Rate, RateLimiter};

const CLOCK: SystemClock = SystemClock;

fn limiter() -> RateLimiter {
    RateLimiter::builder(64).clock(SystemClock::shared()).build()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_they_came() {
    let (limiter, rate, start) = (limiter(), Rate::new(1, secs(1)).unwrap(), CLOCK.now());
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..5u32 {
        let (limiter, order) = (limiter.clone(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let _ = limiter.wait("k", rate, 1, &CLOCK, Deadline::NONE).await.unwrap();
            order.lock().unwrap().push((n, (CLOCK.now() - start).as_secs()));
        }));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_has_taken_nothing() {
    let (limiter, rate) = (limiter(), Rate::new(1, secs(10)).unwrap());
    let _ = limiter.check("k", rate).unwrap();
    let start = CLOCK.now();
    let dropped = tokio::time::timeout(secs(3), limiter.wait("k", rate, 1, &CLOCK, Deadline::NONE)).await;
    assert!(dropped.is_err());
    let _ = limiter.wait("k", rate, 1, &CLOCK, Deadline::NONE).await.unwrap();
    assert_eq!((CLOCK.now() - start).as_secs(), 10, "the first token that came back was still there");
}

#[tokio::test(start_paused = true)]
async fn the_next_in_line_takes_the_place_of_one_that_gave_up() {
    let (limiter, rate) = (limiter(), Rate::new(1, secs(10)).unwrap());
    let _ = limiter.check("k", rate).unwrap();
    let start = CLOCK.now();
    let waiting =
        |limiter: RateLimiter| async move { limiter.wait("k", rate, 1, &CLOCK, Deadline::NONE).await };
    let first = tokio::spawn(waiting(limiter.clone()));
    tokio::task::yield_now().await;
    let second = tokio::spawn(waiting(limiter.clone()));
    tokio::time::sleep(secs(4)).await;
    first.abort();
    let _ = second.await.unwrap().unwrap();
    assert_eq!((CLOCK.now() - start).as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_cannot_end_in_time_is_not_begun() {
    let (limiter, rate, start) = (limiter(), Rate::new(1, secs(10)).unwrap(), CLOCK.now());
    let _ = limiter.check("k", rate).unwrap();
    let deadline = Deadline::after(&CLOCK, secs(15));
    let error = limiter.wait("k", rate, 1, &CLOCK, Deadline::after(&CLOCK, secs(5))).await.unwrap_err();
    assert!(matches!(error, LimitError::TooLate { retry_after } if retry_after >= secs(9)), "{error}");
    let ahead = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.wait("k", rate, 1, &CLOCK, Deadline::NONE).await }
    });
    tokio::task::yield_now().await;
    let error = limiter.wait("k", rate, 1, &CLOCK, deadline).await.unwrap_err();
    assert!(
        matches!(error, LimitError::TooLate { retry_after } if retry_after >= secs(19)),
        "behind another: {error}"
    );
    assert_eq!(CLOCK.now() - start, Duration::ZERO, "both were told at once");
    let _ = ahead.await.unwrap().unwrap();
    let error = limiter.wait("k", rate, 2, &CLOCK, Deadline::NONE).await.unwrap_err();
    assert_eq!(error, LimitError::LargerThanBucket { cost: 2, burst: 1 });
}
