//! So many of something at once.

use std::time::Duration;

use runtime_kernel::{Classify, Deadline, ErrorKind, ManualClock};
use runtime_limits::{Overloaded, SemaphoreLimit};

#[tokio::test]
async fn permits_come_back_and_the_large_are_not_starved() {
    let clock = ManualClock::new();
    let limit = SemaphoreLimit::new(10, 2).unwrap();
    let held = limit.acquire_now(4).unwrap();
    let mut large = Box::pin(limit.acquire(8, &clock, Deadline::NONE));
    assert!(futures_util::poll!(large.as_mut()).is_pending());
    let mut small = Box::pin(limit.acquire(1, &clock, Deadline::NONE));
    assert!(futures_util::poll!(small.as_mut()).is_pending(), "six are free, but the large one came first");
    let full = limit.acquire(1, &clock, Deadline::NONE).await.unwrap_err();
    assert!(matches!(full, Overloaded::Full { limit: 10, .. }), "two wait already: {full}");
    drop(held);
    let large = large.await.unwrap();
    let small = small.await.unwrap();
    assert_eq!((limit.available(), limit.waiting()), (1, 0));
    drop((large, small));
    assert_eq!(limit.available(), 10);
}

#[tokio::test]
async fn what_never_fits_is_told_apart_and_a_deadline_ends_the_wait() {
    let clock = ManualClock::new();
    let limit = SemaphoreLimit::new(2, 1).unwrap();
    let error = limit.acquire(3, &clock, Deadline::NONE).await.unwrap_err();
    assert_eq!((error, error.kind()), (Overloaded::TooMuch { asked: 3, limit: 2 }, ErrorKind::TooLarge));
    let _held = limit.acquire_now(2).unwrap();
    let mut wait = Box::pin(limit.acquire(1, &clock, Deadline::after(&clock, Duration::from_secs(1))));
    assert!(futures_util::poll!(wait.as_mut()).is_pending());
    clock.advance(Duration::from_secs(1));
    assert_eq!(wait.await.unwrap_err(), Overloaded::DeadlinePassed);
    assert_eq!(limit.waiting(), 0);
    assert_eq!(SemaphoreLimit::new(0, 1).unwrap_err().key, "permits");
}
