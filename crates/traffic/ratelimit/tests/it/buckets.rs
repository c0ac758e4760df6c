//! Single keys: what is granted, refused, given back and forgotten.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Classify, Error, ErrorKind, ManualClock, Retry};
use runtime_ratelimit::{LimitError, Overflow, Rate, RateLimiter};

fn limiter() -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    (RateLimiter::builder(1_000).clock(Arc::new(clock.clone())).build(), clock)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_bucket_starts_full_and_refills_one_token_per_interval() {
    let ((limiter, clock), rate) = (limiter(), Rate::new(5, secs(10)).unwrap());
    for left in (0..5).rev() {
        assert_eq!(limiter.check("k", rate).unwrap().remaining(), left);
    }
    let error = limiter.check("k", rate).unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(2)));
    clock.advance(secs(2));
    assert_eq!(limiter.check("k", rate).unwrap().remaining(), 0);
    clock.advance(secs(100));
    assert_eq!(limiter.peek("k", rate).remaining(), 5, "no more than it holds");
}

#[test]
fn a_refusal_says_when_and_how_much_is_left() {
    let ((limiter, _), rate) = (limiter(), Rate::new(10, secs(10)).unwrap());
    let _ = limiter.check_n("k", rate, 7).unwrap();
    let error = limiter.check_n("k", rate, 5).unwrap_err();
    let LimitError::Exceeded { retry_after, standing } = error else { panic!("{error}") };
    assert_eq!((retry_after.as_secs(), standing.remaining()), (2, 3));
    assert_eq!(limiter.peek("k", rate).remaining(), 3, "nothing was taken");
    let error = Error::from(error);
    assert_eq!((error.kind(), error.code()), (ErrorKind::RateLimited, "ratelimit.exceeded"));
    assert_eq!(error.retry(), Retry::After(retry_after));
}

#[test]
fn more_than_the_bucket_holds_is_an_error_of_its_own() {
    let ((limiter, _), rate) = (limiter(), Rate::per_minute(10).unwrap());
    let error = limiter.check_n("k", rate, 11).unwrap_err();
    assert_eq!(error, LimitError::LargerThanBucket { cost: 11, burst: 10 });
    assert_eq!((error.retry(), error.kind()), (Retry::Never, ErrorKind::TooLarge));
    assert_eq!(limiter.reserve("k", rate, 11).map(drop), Err(error));
}

#[test]
fn a_cost_of_nothing_looks_and_remembers_nothing() {
    let ((limiter, _), rate) = (limiter(), Rate::per_minute(10).unwrap());
    assert_eq!(limiter.check_n("k", rate, 0).unwrap().remaining(), 10);
    assert_eq!(limiter.peek("other", rate).remaining(), 10);
    assert_eq!(limiter.in_debt(), 0);
    let _ = limiter.check("k", rate).unwrap();
    assert_eq!((limiter.check_n("k", rate, 0).unwrap().remaining(), limiter.in_debt()), (9, 1));
}

#[test]
fn at_most_takes_what_there_is() {
    let ((limiter, _), rate) = (limiter(), Rate::per_minute(10).unwrap());
    let took = [
        limiter.take_up_to("k", rate, 7),
        limiter.take_up_to("k", rate, 7),
        limiter.take_up_to("k", rate, 7),
    ];
    assert_eq!(took, [7, 3, 0]);
}

#[test]
fn each_key_may_have_a_rate_of_its_own_and_a_new_one_holds_at_once() {
    let ((limiter, _), free) = (limiter(), Rate::per_minute(2).unwrap());
    let premium = Rate::per_minute(5).unwrap();
    let _ = limiter.check_n("a", free, 2).unwrap();
    let _ = limiter.check("b", premium).unwrap();
    assert!(limiter.check("a", free).is_err());
    let standing = limiter.check("a", premium).unwrap();
    assert!((1..=2).contains(&standing.remaining()), "three of five are taken: {standing:?}");
}

#[test]
fn reset_fills_the_bucket() {
    let ((limiter, _), rate) = (limiter(), Rate::per_minute(2).unwrap());
    let _ = limiter.check_n("k", rate, 2).unwrap();
    limiter.reset("k");
    limiter.reset("never seen");
    assert_eq!(limiter.peek("k", rate).remaining(), 2);
}

#[test]
fn what_was_reserved_and_not_used_comes_back() {
    let ((limiter, clock), rate) = (limiter(), Rate::new(100, secs(100)).unwrap());
    let first = limiter.reserve("k", rate, 60).unwrap();
    let second = limiter.reserve("k", rate, 30).unwrap();
    clock.advance(secs(5));
    assert_eq!(limiter.peek("k", rate).remaining(), 15);
    assert_eq!(first.settle(10).remaining(), 65);
    assert_eq!(second.cancel().remaining(), 95);
}

#[test]
fn what_time_has_already_paid_for_does_not_come_back_twice() {
    let ((limiter, clock), rate) = (limiter(), Rate::new(10, secs(10)).unwrap());
    let reservation = limiter.reserve("k", rate, 9).unwrap();
    clock.advance(secs(12));
    let _ = limiter.check_n("k", rate, 10).unwrap();
    assert_eq!(reservation.settle(0).remaining(), 0, "the bucket was full in between");
}

#[test]
fn a_dropped_reservation_counts_as_used() {
    let ((limiter, _), rate) = (limiter(), Rate::per_minute(10).unwrap());
    drop(limiter.reserve("k", rate, 9).unwrap());
    assert_eq!(limiter.peek("k", rate).remaining(), 1);
}

#[test]
fn more_than_reserved_is_owed_beyond_the_bucket() {
    let ((limiter, clock), rate) = (limiter(), Rate::new(10, secs(10)).unwrap());
    assert_eq!(limiter.reserve("k", rate, 5).unwrap().settle(25).remaining(), 0);
    clock.advance(secs(15));
    assert!(limiter.check("k", rate).is_err(), "25 tokens take 25 seconds, the bucket covers ten");
    clock.advance(secs(2));
    assert!(limiter.check("k", rate).is_ok());
}

#[test]
fn a_full_table_refuses_or_shares_and_forgets_nobody_in_debt() {
    let rate = Rate::per_minute(2).unwrap();
    for overflow in [Overflow::Refuse, Overflow::Shared] {
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder(1).overflow(overflow).clock(Arc::new(clock.clone())).build();
        let granted = (0..1_000).filter(|key| limiter.check(key, rate).is_ok()).collect::<Vec<_>>();
        let held = limiter.in_debt();
        assert!(held < 100, "the table is small: {held}");
        for key in granted.iter().take(held) {
            assert_eq!(limiter.peek(key, rate).remaining(), 1, "still in debt");
        }
        match overflow {
            Overflow::Refuse => assert_eq!(granted.len(), held),
            _ => assert_eq!(granted.len(), held + 2, "the others share one bucket of two"),
        }
        let error = limiter.check(&5_000, rate).unwrap_err();
        assert_eq!(matches!(error, LimitError::Full { .. }), overflow == Overflow::Refuse, "{error}");
        clock.advance(secs(60) + Duration::from_micros(1));
        assert!(limiter.check(&5_000, rate).is_ok(), "room again once somebody's bucket is full");
    }
}
