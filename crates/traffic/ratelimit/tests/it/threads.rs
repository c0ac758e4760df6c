//! Many threads on few buckets: never a token too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use runtime_kernel::ManualClock;
use runtime_ratelimit::{Rate, RateLimiter};

const THREADS: usize = 4;

fn limiter(keys: usize) -> RateLimiter {
    // Time stands still, so the bursts are all there is.
    RateLimiter::builder(keys).clock(Arc::new(ManualClock::new())).build()
}

fn race(work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let work = &work;
            scope.spawn(move || work(thread));
        }
    });
}

#[test]
fn ten_thousand_tokens_are_granted_once_each() {
    let (limiter, rate, granted) = (limiter(64), Rate::per_hour(10_000).unwrap(), AtomicU32::new(0));
    race(|_| {
        for _ in 0..10_000 {
            granted.fetch_add(u32::from(limiter.check("k", rate).is_ok()), Ordering::Relaxed);
        }
    });
    assert_eq!(granted.load(Ordering::Relaxed), 10_000);
}

#[test]
fn new_keys_race_for_slots_and_none_gets_two() {
    let (limiter, rate, granted) = (limiter(1_000), Rate::per_hour(1).unwrap(), AtomicU32::new(0));
    race(|_| {
        for key in 0..1_000 {
            granted.fetch_add(u32::from(limiter.check(&key, rate).is_ok()), Ordering::Relaxed);
        }
    });
    assert!(granted.load(Ordering::Relaxed) <= 1_000, "{granted:?}");
    assert!(limiter.in_debt() >= 990, "{}", limiter.in_debt());
}

#[test]
fn requests_for_several_keys_in_any_order_neither_deadlock_nor_overdraw() {
    let (limiter, rate) = (limiter(64), Rate::per_hour(3_000).unwrap());
    let granted = AtomicU32::new(0);
    race(|thread| {
        for n in 0..4_000 {
            let keys = if (n + thread) % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
            let asks = keys.map(|key| limiter.ask(&key, rate));
            granted.fetch_add(u32::from(limiter.check_all(&asks).is_ok()), Ordering::Relaxed);
        }
    });
    let granted = granted.load(Ordering::Relaxed);
    assert!((2_999..=3_000).contains(&granted), "{granted}");
    for key in 0..3 {
        assert!(3_000 - granted >= limiter.peek(&key, rate).remaining(), "as much as was granted, not more");
    }
}

#[test]
fn reservations_settled_by_many_threads_give_back_what_they_took() {
    let (limiter, rate) = (limiter(64), Rate::per_hour(1_000).unwrap());
    race(|_| {
        for used in 0..2_000 {
            if let Ok(reservation) = limiter.reserve("k", rate, 10) {
                let _ = reservation.settle(u32::from(used % 20 == 0));
            }
        }
    });
    let left = limiter.peek("k", rate).remaining();
    assert!((599..=600).contains(&left), "4 × 100 tokens were used: {left}");
}
