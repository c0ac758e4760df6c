//! Several keys in one step: all or nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use runtime_kernel::ManualClock;
use runtime_ratelimit::{LimitError, MOST_KEYS, Rate, RateLimiter};

fn limiter() -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    (RateLimiter::builder(1_000).clock(Arc::new(clock.clone())).build(), clock)
}

#[test]
fn a_refusal_names_the_key_and_takes_nothing_from_the_others() {
    let (limiter, _) = limiter();
    let (ip, user) = (Rate::per_minute(100).unwrap(), Rate::per_minute(2).unwrap());
    let ask =
        || [limiter.ask(&("ip", 1), ip), limiter.ask(&("user", 7), user), limiter.ask(&("route", 3), ip)];
    for _ in 0..2 {
        let tightest = limiter.check_all(&ask()).unwrap().unwrap();
        assert_eq!((tightest.index, tightest.standing.rate()), (1, user));
    }
    for _ in 0..50 {
        let refused = limiter.check_all(&ask()).unwrap_err();
        assert_eq!(refused.index, 1);
        assert!(matches!(refused.error, LimitError::Exceeded { .. }));
    }
    assert!(limiter.peek(&("ip", 1), ip).remaining() >= 97);
    assert!(limiter.peek(&("route", 3), ip).remaining() >= 97);
}

#[test]
fn of_several_refusals_the_longest_wait_is_told() {
    let (limiter, _) = limiter();
    let (minute, hour) = (Rate::per_minute(1).unwrap(), Rate::per_hour(1).unwrap());
    let ask = || [limiter.ask("a", minute), limiter.ask("b", hour), limiter.ask("c", minute)];
    let _ = limiter.check_all(&ask()).unwrap();
    let refused = limiter.check_all(&ask()).unwrap_err();
    assert_eq!(refused.index, 1);
    assert!(refused.error.retry_after() > Some(Duration::from_secs(3_500)));
}

#[test]
fn a_key_that_repeats_pays_for_each() {
    let (limiter, _) = limiter();
    let rate = Rate::per_minute(5).unwrap();
    let three = [limiter.ask("k", rate), limiter.ask("k", rate), limiter.ask("k", rate)];
    assert_eq!(limiter.check_all(&three).unwrap().unwrap().standing.remaining(), 2);
    assert_eq!(limiter.check_all(&three).unwrap_err().index, 2);
    assert_eq!(limiter.peek("k", rate).remaining(), 2);
}

#[test]
fn a_key_that_repeats_at_another_rate_pays_token_for_token() {
    let (fast, slow) =
        (Rate::per_second(1_000).unwrap(), Rate::per_second(1).unwrap().with_burst(10).unwrap());
    let (limiter, _) = limiter();
    let asks = [limiter.ask("k", fast).cost(5), limiter.ask("k", slow)];
    let _ = limiter.check_all(&asks).unwrap();
    // A debt that is brought to another rate is rounded against the key.
    assert!((3..=4).contains(&limiter.peek("k", slow).remaining()));
    let asks = [limiter.ask("l", slow), limiter.ask("l", fast).cost(5)];
    let _ = limiter.check_all(&asks).unwrap();
    assert!((993..=994).contains(&limiter.peek("l", fast).remaining()));
}

/// Each takes the slot that has been full for longest: not the one that the key before it has just been given.
#[test]
fn several_new_keys_find_room_in_a_table_without_an_empty_slot() {
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder(1).clock(Arc::new(clock.clone())).build();
    let rate = Rate::per_minute(5).unwrap();
    for key in 0..500 {
        limiter.check(&key, rate).unwrap();
        clock.advance(Duration::from_hours(1));
    }
    let asks = [limiter.ask("a", rate), limiter.ask("b", rate), limiter.ask("c", rate)];
    let _ = limiter.check_all(&asks).unwrap();
    assert_eq!(["a", "b", "c"].map(|key| limiter.peek(key, rate).remaining()), [4, 4, 4]);
}

#[test]
fn none_is_granted_and_too_many_are_refused() {
    let (limiter, _) = limiter();
    let rate = Rate::per_minute(5).unwrap();
    assert_eq!(limiter.check_all(&[]), Ok(None));
    let asks: Vec<_> = (0..=MOST_KEYS).map(|key| limiter.ask(&key, rate)).collect();
    let refused = limiter.check_all(&asks).unwrap_err();
    assert_eq!(refused.error, LimitError::TooManyKeys { keys: MOST_KEYS + 1, most: MOST_KEYS });
    assert!(limiter.check_all(&asks[1..]).is_ok());
    let large = limiter.check_all(&[asks[0], asks[1].cost(6)]).unwrap_err();
    assert_eq!((large.index, large.error), (1, LimitError::LargerThanBucket { cost: 6, burst: 5 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Beside a naive model: floating buckets in a map, all checked before any is touched.
    #[test]
    fn together_is_what_the_model_says(
        requests in proptest::collection::vec((0u64..900, proptest::collection::vec((0u8..4, 1u32..4), 1..6)), 1..60),
    ) {
        let (limiter, clock) = limiter();
        let rates = [1u32, 3, 7, 20].map(|n| Rate::new(n, Duration::from_secs(4)).unwrap().with_burst(n + 3).unwrap());
        let (mut now, mut full_at) = (0u128, HashMap::<u8, u128>::new());
        for (ms, asks) in requests {
            clock.advance(Duration::from_millis(ms));
            now += u128::from(ms) * 1_000_000;
            let mut after = full_at.clone();
            let granted = asks.iter().all(|(key, cost)| {
                let rate = rates[usize::from(*key)];
                let full = after.entry(*key).or_default();
                *full = (*full).max(now) + rate.interval().as_nanos() * u128::from(*cost);
                *full - now <= rate.fill_time().as_nanos()
            });
            if granted {
                full_at = after;
            }
            let asks: Vec<_> =
                asks.iter().map(|(key, cost)| limiter.ask(key, rates[usize::from(*key)]).cost(*cost)).collect();
            prop_assert_eq!(limiter.check_all(&asks).is_ok(), granted);
            for (key, rate) in (0u8..).zip(rates) {
                let debt = full_at.get(&key).copied().unwrap_or_default().saturating_sub(now);
                let stands = limiter.peek(&key, rate).reset_after().as_nanos();
                prop_assert!(stands.abs_diff(debt) <= 1, "key {key}: {stands} {debt}");
            }
        }
    }
}
