//! Delays, bounds and configuration of policies.

use std::time::Duration;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use runtime_kernel::Retry;
use runtime_resilience::{
    Backoff, BudgetConfig, Jitter, ResilienceConfig, RetryConfig, RetryPolicies, RetryPolicy,
};

fn policy(json: &str) -> Result<RetryPolicy, serde_json::Error> {
    serde_json::from_str(json)
}

fn millis(policy: &RetryPolicy, attempts: u32) -> Vec<u128> {
    let mut rng = StdRng::seed_from_u64(1);
    (1..=attempts).map(|attempt| policy.delay(attempt, &mut rng).as_millis()).collect()
}

#[test]
fn each_backoff_grows_in_its_own_way_up_to_the_cap() {
    for (json, delays) in [
        (
            r#"{"backoff":"constant","base_delay":"1s","max_delay":"9s","jitter":"none"}"#,
            [1000, 1000, 1000, 1000, 1000],
        ),
        (
            r#"{"backoff":"linear","base_delay":"1s","max_delay":"4s","jitter":"none"}"#,
            [1000, 2000, 3000, 4000, 4000],
        ),
        (
            r#"{"backoff":"exponential","base_delay":"1s","max_delay":"9s","jitter":"none"}"#,
            [1000, 2000, 4000, 8000, 9000],
        ),
        (
            r#"{"factor":3.0,"base_delay":"1s","max_delay":"30s","jitter":"none"}"#,
            [1000, 3000, 9000, 27000, 30000],
        ),
        (r#"{"base_delay":"0s","max_delay":"5s","jitter":"none"}"#, [0, 0, 0, 0, 0]),
    ] {
        assert_eq!(millis(&policy(json).unwrap(), 5), delays, "{json}");
    }
}

#[test]
fn the_same_seed_gives_the_same_delays() {
    let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_mins(1)).unwrap();
    assert_eq!(millis(&policy, 20), millis(&policy, 20));
}

#[test]
fn a_wrong_policy_is_refused_with_the_key_named() {
    for (json, words) in [
        (r#"{"max_attempts":0}"#, "`max_attempts` must be 1 to 1000"),
        (r#"{"max_attempts":1001}"#, "`max_attempts` must be 1 to 1000"),
        (r#"{"base_delay":"10s","max_delay":"1s"}"#, "`max_delay` must not be less than `base_delay`"),
        (r#"{"max_delay":"2 years"}"#, "`max_delay` must not be more than 366 days"),
        (r#"{"max_retry_after":"2 years"}"#, "`max_retry_after` must not be more than 366 days"),
        (r#"{"factor":0.5}"#, "`factor` must be 1 to 100"),
        (
            r#"{"backoff":"decorrelated","jitter":"none"}"#,
            "`jitter` must be `full` with decorrelated backoff",
        ),
        (r#"{"attempt_timeout":"0s"}"#, "`attempt_timeout` must not be 0"),
        (r#"{"total_timeout":"0s"}"#, "`total_timeout` must not be 0"),
        (r#"{"max_tries":3}"#, "unknown field `max_tries`"),
    ] {
        let error = policy(json).unwrap_err().to_string();
        assert!(error.contains(words), "{json}: {error}");
    }
    assert!(RetryPolicy::default().with_factor(f64::NAN).is_err());
}

#[test]
fn a_policy_survives_being_stored() {
    let policy = RetryPolicy::linear(Duration::from_millis(250), Duration::from_secs(9))
        .unwrap()
        .with_max_attempts(7)
        .unwrap()
        .with_attempt_timeout(Duration::from_secs(2))
        .unwrap();
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<RetryPolicy>(&text).unwrap(), policy);
}

#[test]
fn a_verdict_and_the_attempts_made_decide_the_next_delay() {
    let policy = RetryPolicy::constant(Duration::from_secs(1))
        .unwrap()
        .with_jitter(Jitter::None)
        .unwrap()
        .with_max_retry_after(Duration::from_secs(30))
        .unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for (attempt, verdict, expected) in [
        (1, Retry::Backoff, Some(1)),
        (2, Retry::Backoff, Some(1)),
        (3, Retry::Backoff, None),
        (1, Retry::Never, None),
        (1, Retry::Now, Some(0)),
        (1, Retry::After(Duration::from_secs(10)), Some(10)),
        (1, Retry::After(Duration::from_secs(90)), Some(30)),
        (1, Retry::After(Duration::ZERO), Some(1)),
    ] {
        let delay = policy.next_delay(attempt, verdict, &mut rng);
        assert_eq!(delay, expected.map(Duration::from_secs), "{attempt} {verdict:?}");
    }
}

#[test]
fn configured_policies_stand_beside_the_well_known() {
    let config: ResilienceConfig =
        serde_json::from_str(r#"{"retry":{"quick":{"max_attempts":4},"mine":{}}}"#).unwrap();
    let policies = RetryPolicies::new(config).unwrap();
    assert_eq!(
        policies.names().collect::<Vec<_>>(),
        ["aws", "conservative", "default", "expensive", "mine", "quick"]
    );
    assert_eq!(policies.get("quick").unwrap().max_attempts(), 4);
    let bad = serde_json::from_str(r#"{"retry":{"mine":{"factor":0}}}"#).unwrap();
    assert_eq!(RetryPolicies::new(bad).unwrap_err().key, "factor");
}

fn any_policy() -> impl Strategy<Value = RetryPolicy> {
    let backoff = prop_oneof![
        Just((Backoff::Constant, Jitter::None)),
        Just((Backoff::Linear, Jitter::Equal)),
        Just((Backoff::Exponential, Jitter::Full)),
        Just((Backoff::Exponential, Jitter::Equal)),
        Just((Backoff::Decorrelated, Jitter::Full)),
    ];
    (backoff, 0u64..10_000_000, 0u64..10_000_000, 1.0f64..100.0, 1u32..50).prop_map(
        |((backoff, jitter), base, more, factor, attempts)| {
            let mut config = RetryConfig::default();
            config.backoff = backoff;
            config.jitter = jitter;
            config.base_delay = Duration::from_millis(base);
            config.max_delay = Duration::from_millis(base + more);
            config.factor = factor;
            config.max_attempts = attempts;
            RetryPolicy::new(config).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn no_delay_ever_exceeds_the_cap(policy in any_policy(), attempt in prop_oneof![0u32..100, Just(u32::MAX)], seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        prop_assert!(policy.delay(attempt, &mut rng) <= policy.config().max_delay);
        for delay in policy.delays(&mut rng) {
            prop_assert!(delay <= policy.config().max_delay);
        }
        prop_assert_eq!(policy.delays(&mut rng).count(), policy.max_attempts() as usize - 1);
    }

    #[test]
    fn decorrelated_delays_never_fall_below_the_base(base in 1u64..1000, seed: u64) {
        let policy = RetryPolicy::decorrelated(Duration::from_millis(base), Duration::from_millis(base * 50)).unwrap().with_max_attempts(30).unwrap();
        let mut before = Duration::from_millis(base);
        for delay in policy.delays(StdRng::seed_from_u64(seed)) {
            prop_assert!(delay >= policy.config().base_delay && delay <= before * 3);
            before = delay;
        }
    }
}

/// The delays and bounds of the AWS SDKs' retries of 2026.
#[test]
fn the_aws_policy_waits_by_what_failed_and_bounds_what_is_asked() {
    let policies = RetryPolicies::default();
    let aws = policies.get("aws").unwrap().clone().with_jitter(Jitter::None).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut after =
        |attempt, verdict| aws.next_delay(attempt, verdict, &mut rng).map(|delay| delay.as_millis());
    let asked = |millis| Retry::After(Duration::from_millis(millis));
    for (attempt, verdict, expected, why) in [
        (1, Retry::Backoff, Some(50), "a transient failure"),
        (2, Retry::Backoff, Some(100), "and another"),
        (3, Retry::Backoff, None, "three attempts"),
        (1, asked(0), Some(1_000), "throttled, without a hint"),
        (2, asked(0), Some(2_000), "and again"),
        (1, asked(1_500), Some(1_500), "the hint lies within the bounds"),
        (1, asked(60_000), Some(6_000), "no more than five seconds beyond the own delay"),
    ] {
        assert_eq!(after(attempt, verdict), expected, "{why}");
    }
    assert_eq!(
        aws.budget().unwrap().config(),
        BudgetConfig::Tokens { capacity: 500, cost: 14, throttled_cost: 5 }
    );
}

#[test]
fn a_throttled_base_beyond_the_cap_is_refused() {
    let mut config = RetryConfig::default();
    config.throttle_base_delay = Some(Duration::from_secs(6));
    assert_eq!(RetryPolicy::new(config).unwrap_err().key, "throttle_base_delay");
}
