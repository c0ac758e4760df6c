//! The behaviours of CrossBridge's and vyro's limiters, each kept or deliberately different.
//!
//! Different, and why:
//! - A key's first check does not fix its rate: a plan that changes takes effect (CrossBridge ignores it).
//! - A cost of 0 looks; negative costs cannot be written (CrossBridge and vyro add tokens for them).
//! - A cost above the bucket is an error of its own (both refuse it for ever without a word).
//! - A window of 0 is an error with its name (CrossBridge divides by it).
//! - Time is monotonic (CrossBridge's buckets lose and gain tokens with the wall clock).
//! - Keys beyond the table share a bucket or are refused (CrossBridge forgets debt, vyro grows for ever).
//! - Looking at a bucket does not create it (vyro's `tokens()` does).

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Error, ErrorKind, ManualClock, Retry};
use runtime_ratelimit::{LimitError, Operations, Rate, RateError, RateLimitConfig, RateLimiter};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limiter(keys: usize) -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    (RateLimiter::builder(keys).clock(Arc::new(clock.clone())).build(), clock)
}

fn granted(limiter: &RateLimiter, key: &str, rate: Rate, asks: u32) -> u32 {
    (0..asks).map(|_| u32::from(limiter.check(key, rate).is_ok())).sum()
}

#[test]
fn crossbridge_1_a_new_bucket_is_full_and_numbers_must_be_positive() {
    let (limiter, _) = limiter(64);
    assert_eq!(limiter.peek("new", Rate::per_minute(5).unwrap()).remaining(), 5);
    for (made, error) in
        [(Rate::new(0, secs(60)), RateError::NoCapacity), (Rate::new(5, Duration::ZERO), RateError::NoWindow)]
    {
        assert_eq!(made.unwrap_err(), error);
    }
}

#[test]
fn crossbridge_2_five_pass_and_the_sixth_does_not_and_what_is_left_stays() {
    let (limiter, _) = limiter(64);
    assert_eq!(granted(&limiter, "a", Rate::per_minute(5).unwrap(), 6), 5);
    let ten = Rate::per_minute(10).unwrap();
    assert_eq!(limiter.check_n("b", ten, 3).unwrap().remaining(), 7);
    assert!(limiter.check_n("b", ten, 8).is_err());
    assert_eq!(limiter.peek("b", ten).remaining(), 7);
}

#[test]
fn crossbridge_3_tokens_come_back_at_the_rate_and_never_beyond_the_capacity() {
    let ((limiter, clock), rate) = (limiter(64), Rate::per_second(10).unwrap());
    assert_eq!(granted(&limiter, "a", rate, 10), 10);
    clock.advance(Duration::from_millis(500));
    assert_eq!(granted(&limiter, "a", rate, 10), 5);
    clock.advance(secs(1_000));
    assert_eq!(limiter.peek("a", rate).remaining(), 10);
}

#[test]
fn crossbridge_4_and_6_reset_fills_keys_are_apart_and_an_unknown_key_has_its_capacity() {
    let ((limiter, _), rate) = (limiter(64), Rate::per_minute(3).unwrap());
    assert_eq!((granted(&limiter, "a", rate, 4), granted(&limiter, "b", rate, 2)), (3, 2));
    limiter.reset("a");
    let left = ["a", "b", "never seen"].map(|key| limiter.peek(key, rate).remaining());
    assert_eq!(left, [3, 1, 3]);
}

#[test]
fn crossbridge_5_ten_threads_get_no_more_than_there_is() {
    let ((limiter, _), rate) = (limiter(64), Rate::per_hour(100).unwrap());
    let total: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| granted(&limiter, "a", rate, 20))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(total, 100);
}

#[test]
fn crossbridge_7_and_8_the_table_stays_bounded_and_says_what_it_holds() {
    let ((limiter, clock), rate) = (limiter(10), Rate::per_second(1).unwrap());
    for key in 0..1_000 {
        let _ = limiter.check(&key, rate);
        clock.advance(secs(2));
    }
    assert!(limiter.in_debt() <= 1, "full buckets make room");
}

#[test]
fn crossbridge_9_and_10_sixty_of_seventy_and_tiers_by_key_and_capacity() {
    let ((limiter, _), free) = (limiter(64), Rate::per_minute(60).unwrap());
    assert_eq!(granted(&limiter, "tenant-a", free, 70), 60);
    assert_eq!(granted(&limiter, "tenant-b", Rate::per_minute(200).unwrap(), 300), 200);
    assert!(limiter.check_n("tenant-c", free, 60).is_ok());
}

#[test]
fn crossbridge_11_a_refusal_says_what_was_exceeded_and_when_to_come_back() {
    let ((limiter, _), rate) = (limiter(64), Rate::per_minute(1).unwrap());
    let _ = limiter.check("a", rate);
    let error = limiter.check("a", rate).unwrap_err();
    let LimitError::Exceeded { retry_after, standing } = error else { panic!("{error}") };
    assert_eq!((retry_after, standing.rate().burst(), standing.rate().fill_time()), (secs(60), 1, secs(60)));
    let error = Error::from(error);
    assert_eq!((error.kind(), error.retry()), (ErrorKind::RateLimited, Retry::After(secs(60))));
}

#[test]
fn different_a_changed_capacity_takes_effect_and_a_cost_beyond_it_is_told() {
    let (limiter, _) = limiter(64);
    let (free, premium) = (Rate::per_minute(2).unwrap(), Rate::per_minute(10).unwrap());
    // Two of ten are taken; a debt is carried over rounded up by a thousandth, which costs the eighth for a moment.
    assert_eq!((granted(&limiter, "a", free, 5), granted(&limiter, "a", premium, 20)), (2, 7));
    let error = limiter.check_n("a", premium, 11).unwrap_err();
    assert_eq!(error, LimitError::LargerThanBucket { cost: 11, burst: 10 });
}

#[test]
fn crossbridge_an_unknown_operation_has_thirty_per_minute() {
    let operations = Operations::new(&RateLimitConfig::default()).unwrap();
    let rate = operations.rate("unknown", "user:1");
    assert_eq!((rate.burst(), rate.fill_time()), (30, secs(60)));
}

#[test]
fn vyro_5_one_per_second_with_two_at_once() {
    let ((limiter, clock), rate) = (limiter(64), Rate::per_second(1).unwrap().with_burst(2).unwrap());
    assert_eq!(granted(&limiter, "a", rate, 3), 2);
    let twenty = Rate::per_second(20).unwrap().with_burst(1).unwrap();
    assert_eq!(granted(&limiter, "b", twenty, 2), 1);
    clock.advance(Duration::from_millis(60));
    assert_eq!(granted(&limiter, "b", twenty, 1), 1);
}

#[test]
fn vyro_6_a_tuple_of_keys_is_a_bucket_of_its_own() {
    let ((limiter, _), rate) = (limiter(64), Rate::per_second(1).unwrap().with_burst(1).unwrap());
    assert!(limiter.check(&("ip", "user-1"), rate).is_ok());
    assert!(limiter.check(&("ip", "user-1"), rate).is_err());
    assert!(limiter.check(&("ip", "user-2"), rate).is_ok());
    assert_eq!(limiter.peek(&("ip", "user-3"), rate).remaining(), 1);
    assert_eq!(limiter.in_debt(), 2, "looking made no bucket");
}
