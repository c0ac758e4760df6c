//! The law: in any window, grants never exceed `burst + rate × time`, whatever is asked, settled, repriced or evicted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use runtime_kernel::ManualClock;
use runtime_ratelimit::{LimitError, Overflow, Rate, RateLimiter, Reservation};

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Take { key: u8, cost: u32 },
    UpTo { key: u8, most: u32 },
    Reserve { key: u8, estimate: u32 },
    Settle { nth: usize, used: u32 },
    Peek { key: u8 },
}

fn steps(keys: u8) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u64..3_000).prop_map(Step::Advance),
        5 => (0..keys, 1u32..6).prop_map(|(key, cost)| Step::Take { key, cost }),
        1 => (0..keys, 0u32..9).prop_map(|(key, most)| Step::UpTo { key, most }),
        2 => (0..keys, 1u32..6).prop_map(|(key, estimate)| Step::Reserve { key, estimate }),
        2 => (0usize..8, 0u32..6).prop_map(|(nth, used)| Step::Settle { nth, used }),
        1 => (0..keys).prop_map(|key| Step::Peek { key }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Grants of one key: when, and how many tokens they came to in the end.
type Grants = HashMap<u8, Vec<(u64, u32)>>;

fn run(limiter: &RateLimiter, clock: &ManualClock, rate: Rate, steps: &[Step]) -> Grants {
    let (mut now, mut grants) = (0u64, Grants::new());
    let mut open: Vec<(u8, usize, Reservation)> = Vec::new();
    for step in steps {
        match *step {
            Step::Advance(ms) => {
                clock.advance(Duration::from_millis(ms));
                now += ms;
            }
            Step::Take { key, cost } => {
                if limiter.check_n(&key, rate, cost).is_ok() {
                    grants.entry(key).or_default().push((now, cost));
                }
            }
            Step::UpTo { key, most } => {
                let got = limiter.take_up_to(&key, rate, most);
                grants.entry(key).or_default().push((now, got));
            }
            Step::Reserve { key, estimate } => {
                if let Ok(reservation) = limiter.reserve(&key, rate, estimate) {
                    let of_key = grants.entry(key).or_default();
                    of_key.push((now, estimate));
                    open.push((key, of_key.len() - 1, reservation));
                }
            }
            Step::Settle { nth, used } if nth < open.len() => {
                let (key, at, reservation) = open.remove(nth);
                let used = used.min(reservation.tokens());
                let _ = reservation.settle(used);
                grants.get_mut(&key).unwrap()[at].1 = used;
            }
            Step::Settle { .. } => {}
            Step::Peek { key } => {
                let _ = limiter.peek(&key, rate);
            }
        }
    }
    grants
}

/// Says which window holds too much, if any does.
fn too_much(grants: &[(u64, u32)], rate: Rate) -> Option<String> {
    for (from, _) in grants {
        let mut sum = 0u64;
        for (at, tokens) in grants.iter().filter(|(at, _)| at >= from) {
            sum += u64::from(*tokens);
            let refilled = u128::from(at - from) * 1_000_000 / rate.interval().as_nanos();
            if u128::from(sum) > u128::from(rate.burst()) + refilled {
                return Some(format!("{sum} tokens from {from} to {at} ms: {grants:?}"));
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_window_holds_more_than_burst_and_refill(
        steps in steps(3), capacity in 1u32..9, window in 1u64..20, burst in 5u32..9,
    ) {
        let rate = Rate::new(capacity, Duration::from_secs(window)).unwrap().with_burst(burst).unwrap();
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder(64).clock(Arc::new(clock.clone())).build();
        for (key, grants) in run(&limiter, &clock, rate, &steps) {
            prop_assert_eq!(too_much(&grants, rate), None, "key {}", key);
        }
    }

    #[test]
    fn eviction_never_grants_what_the_bucket_would_have_refused(steps in steps(120), shared in any::<bool>()) {
        // Room for far fewer keys than come, so slots change hands all the time.
        let rate = Rate::new(2, Duration::from_secs(8)).unwrap().with_burst(5).unwrap();
        let clock = ManualClock::new();
        let overflow = if shared { Overflow::Shared } else { Overflow::Refuse };
        let limiter = RateLimiter::builder(1).overflow(overflow).clock(Arc::new(clock.clone())).build();
        for (key, grants) in run(&limiter, &clock, rate, &steps) {
            prop_assert_eq!(too_much(&grants, rate), None, "key {}", key);
        }
    }

    #[test]
    fn a_single_key_is_granted_exactly_what_the_algorithm_says(
        asks in proptest::collection::vec((0u64..2_000, 1u32..7), 1..80), window in 1u64..9,
    ) {
        let rate = Rate::new(6, Duration::from_secs(window)).unwrap();
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder(64).clock(Arc::new(clock.clone())).build();
        let interval = rate.interval().as_nanos();
        let (mut now, mut full_at) = (0u128, 0u128);
        for (ms, cost) in asks {
            clock.advance(Duration::from_millis(ms));
            now += u128::from(ms) * 1_000_000;
            let next = full_at.max(now) + interval * u128::from(cost);
            let wait = next.saturating_sub(now + interval * 6);
            if wait == 0 {
                full_at = next;
            }
            match limiter.check_n("key", rate, cost) {
                Ok(standing) => {
                    prop_assert_eq!(wait, 0);
                    prop_assert_eq!(u128::from(standing.remaining()), (interval * 6 - (full_at - now)) / interval);
                }
                Err(LimitError::Exceeded { retry_after, standing }) => {
                    // A first look leaves a nanosecond of debt behind, so that is how far off it may be.
                    prop_assert!(retry_after.as_nanos().abs_diff(wait) <= 1, "{retry_after:?} {wait}");
                    prop_assert!(standing.remaining() < cost);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    #[test]
    fn a_changed_rate_keeps_what_was_taken(
        taken in 1u32..=100, from in 1u64..1_000, to in 1u64..1_000, burst in 100u32..200,
    ) {
        let rate = |window| Rate::new(100, Duration::from_secs(window)).unwrap();
        let after = rate(to).with_burst(burst).unwrap();
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder(64).clock(Arc::new(clock.clone())).build();
        let _ = limiter.check_n("key", rate(from), taken).unwrap();
        let left = limiter.peek("key", after).remaining();
        // Rounded against the key by a thousandth and a token at most.
        let exact = burst - taken;
        prop_assert!(left <= exact && left + 2 >= exact, "{left} of {exact}");
        let _ = limiter.check_n("key", after, left.max(1)).ok();
        prop_assert!(limiter.peek("key", after).remaining() <= 1);
    }
}
