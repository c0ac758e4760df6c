//! The behaviours of CrossBridge's retries and vyro's breaker, bulkhead, retry policy and time budget, each kept or
//! deliberately different.
//!
//! Different, and why:
//! - Jitter stays inside the cap (CrossBridge's waits reach one and a half times it).
//! - What is retried is decided by what an error means (CrossBridge reads its text: "processed 5000 items" is a 500).
//! - A success while half-open does not close a breaker that wants more probes; a late success does not close an open
//!   one, a late failure does not keep it open, a probe that never reports does not wedge it (vyro's do).
//! - A limit of 0 is an error with its name (vyro clamps some to 1 in silence, and raises for others).
//! - A place is given back by its guard, on a panic as well (vyro's callers must remember).
//! - A deadline has no child of its own: the narrower of two is taken (vyro's child of an expired budget raises).

use std::cell::Cell;
use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use runtime_kernel::{Context, Deadline, Error, ErrorKind, ManualClock, Source, SystemClock};
use runtime_resilience::{
    BreakerConfig, BreakerState, Bulkhead, BulkheadConfig, CircuitBreaker, Jitter, Outcome, RetryConfig,
    RetryPolicies, RetryPolicy, SharedRng, retry,
};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Attempts made until it gives up or succeeds, and the waits between them.
async fn attempts(policy: &RetryPolicy, answers: &[Option<ErrorKind>]) -> (u32, Vec<Duration>, bool) {
    let (clock, calls) = (SystemClock, Cell::new(0));
    let context = Context::new(Source::Internal, &clock);
    let result = retry(policy, &clock, &context, &mut StdRng::seed_from_u64(1), |attempt| {
        calls.set(attempt);
        let answer = answers.get(attempt as usize - 1).or(answers.last()).copied().flatten();
        std::future::ready(answer.map_or(Ok(()), |kind| Err(Error::new(kind, "test", "test"))))
    })
    .await;
    let waits = result
        .as_ref()
        .err()
        .map_or_else(Vec::new, |error| error.failures().filter_map(|f| f.waited).collect());
    (calls.get(), waits, result.is_ok())
}

#[test]
fn crossbridge_defaults_and_the_named_policies_have_its_figures() {
    let policies = RetryPolicies::default();
    for (name, attempts, base, cap, factor) in [
        ("default", 3, 500, 5_000, 2.0),
        ("expensive", 5, 1_000, 10_000, 2.0),
        ("quick", 2, 100, 1_000, 2.0),
        ("conservative", 3, 2_000, 30_000, 3.0),
    ] {
        let config = policies.get(name).unwrap().config();
        let figures = (config.max_attempts, config.base_delay, config.max_delay, config.factor);
        assert_eq!(figures, (attempts, millis(base), millis(cap), factor), "{name}");
    }
}

#[test]
fn crossbridge_numbers_that_make_no_sense_are_refused_by_name() {
    for (change, key) in [
        ((|c| c.max_attempts = 0) as fn(&mut RetryConfig), "max_attempts"),
        (|c| c.max_delay = millis(1), "max_delay"),
        (|c| c.factor = 0.5, "factor"),
    ] {
        let mut config = RetryConfig::default();
        change(&mut config);
        assert_eq!(RetryPolicy::new(config).unwrap_err().key, key);
    }
}

#[test]
fn crossbridge_delays_grow_by_the_factor_up_to_the_cap_and_jitter_stays_inside() {
    let policy = |factor, jitter| {
        let policy = RetryPolicy::exponential(millis(500), millis(5_000)).unwrap();
        policy.with_factor(factor).unwrap().with_jitter(jitter).unwrap()
    };
    let mut rng = StdRng::seed_from_u64(1);
    let mut delays = |policy: &RetryPolicy| [1, 2, 3, 4, 5].map(|n| policy.delay(n, &mut rng).as_millis());
    assert_eq!(delays(&policy(2.0, Jitter::None)), [500, 1_000, 2_000, 4_000, 5_000]);
    assert_eq!(delays(&policy(3.0, Jitter::None)), [500, 1_500, 4_500, 5_000, 5_000]);
    let equal = policy(2.0, Jitter::Equal);
    let spread: Vec<_> = (0..200).map(|_| delays(&equal)[4]).collect();
    assert!(
        spread.iter().all(|delay| (2_500..=5_000).contains(delay)) && spread.windows(2).any(|w| w[0] != w[1])
    );
}

#[tokio::test(start_paused = true)]
async fn crossbridge_attempts_and_what_is_retried() {
    let policy = RetryPolicy::default().with_jitter(Jitter::None).unwrap();
    let (down, wrong) = (Some(ErrorKind::Unavailable), Some(ErrorKind::Invalid));
    for (answers, calls, waits, succeeds) in [
        (&[None][..], 1, &[][..], true),
        (&[down, down, None], 3, &[], true),
        (&[down], 3, &[500, 1_000], false),
        (&[wrong], 1, &[], false),
        (&[Some(ErrorKind::Unauthenticated)], 1, &[], false),
        (&[Some(ErrorKind::RateLimited), None], 2, &[], true),
        (&[Some(ErrorKind::Timeout), None], 2, &[], true),
        (&[down, wrong], 2, &[500], false),
    ] {
        let expected = (calls, waits.iter().map(|n| millis(*n)).collect(), succeeds);
        assert_eq!(attempts(&policy, answers).await, expected, "{answers:?}");
    }
}

#[test]
fn vyro_3_bulkheads_are_apart_and_bounded() {
    let [payments, search] = [2, 1].map(|n| Bulkhead::new(BulkheadConfig::at_once(n)).unwrap());
    let held = [payments.enter_now().unwrap(), payments.enter_now().unwrap()];
    assert!(payments.enter_now().is_err() && search.enter_now().is_ok());
    drop(held);
    assert_eq!(payments.under_way(), 0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _place = payments.enter_now().unwrap();
        panic!("on the way");
    }));
    assert!(panicked.is_err() && payments.under_way() == 0);
}

#[test]
fn vyro_4_two_failures_open_it_and_one_probe_closes_it() {
    let clock = ManualClock::new();
    let mut config = BreakerConfig::consecutive(2);
    (config.open_for, config.open_jitter, config.half_open_calls) = (millis(10), 0.0, 1);
    let shared = std::sync::Arc::new(clock.clone());
    let breaker = CircuitBreaker::with("b", config, shared, SharedRng::seeded(1), |_| {}).unwrap();
    for _ in 0..2 {
        breaker.acquire().unwrap().record(Outcome::Failure);
    }
    assert!(breaker.state() == BreakerState::Open && breaker.acquire().is_err());
    clock.advance(millis(10));
    let probe = breaker.acquire().unwrap();
    assert!(breaker.state() == BreakerState::HalfOpen && breaker.acquire().is_err());
    probe.record(Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn vyro_7_delays_double_up_to_the_cap_however_many_attempts_there_were() {
    let policy =
        RetryPolicy::exponential(millis(100), millis(250)).unwrap().with_jitter(Jitter::None).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let delays = [1, 2, 3, 1_025, u32::MAX].map(|n| policy.delay(n, &mut rng).as_millis());
    assert_eq!(delays, [100, 200, 250, 250, 250]);
}

#[test]
fn vyro_8_a_budget_shrinks_and_a_narrower_one_never_exceeds_it() {
    let clock = ManualClock::new();
    let budget = Deadline::after(&clock, Duration::from_secs(10));
    assert_eq!(budget.remaining(&clock), Some(Duration::from_secs(10)));
    clock.advance(millis(4_500));
    assert_eq!(budget.remaining(&clock), Some(millis(5_500)));
    let child = budget.narrow(Deadline::after(&clock, Duration::from_secs(10)));
    assert_eq!(child.remaining(&clock), Some(millis(5_500)));
    clock.advance(millis(6_500));
    assert!(budget.is_expired(&clock) && child.remaining(&clock) == Some(Duration::ZERO));
}
