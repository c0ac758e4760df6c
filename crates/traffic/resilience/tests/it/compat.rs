//! Conversions to and from the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use rand::{SeedableRng, rngs::StdRng};
use runtime_kernel::Retry;
use runtime_resilience::compat::{PolicyBackoff, from_backoff_error, to_backoff_error};
use runtime_resilience::{Jitter, RetryPolicy};

#[test]
fn an_exponential_backoff_becomes_a_policy_and_back() {
    let theirs = ExponentialBackoff {
        randomization_factor: 0.5,
        max_elapsed_time: Some(Duration::from_secs(90)),
        ..ExponentialBackoff::default()
    };
    let ours = RetryPolicy::from_backoff(&theirs, 7).unwrap();
    assert_eq!(
        (ours.max_attempts(), ours.config().jitter, ours.total_timeout()),
        (7, Jitter::Equal, Some(Duration::from_secs(90)))
    );
    let back = ours.to_backoff().unwrap();
    assert_eq!(
        (back.initial_interval, back.max_interval, back.multiplier),
        (theirs.initial_interval, theirs.max_interval, theirs.multiplier)
    );
    assert_eq!(back.max_elapsed_time, theirs.max_elapsed_time);
    assert!(RetryPolicy::constant(Duration::from_secs(1)).unwrap().to_backoff().is_err());
}

#[test]
fn a_policy_drives_the_other_crates_loop_and_ends_it() {
    let policy = RetryPolicy::linear(Duration::from_secs(1), Duration::from_secs(9))
        .unwrap()
        .with_jitter(Jitter::None)
        .unwrap();
    let mut run = PolicyBackoff::new(policy, StdRng::seed_from_u64(1));
    let all: Vec<_> = std::iter::from_fn(|| run.next_backoff()).collect();
    assert_eq!(all, [Duration::from_secs(1), Duration::from_secs(2)]);
    run.reset();
    assert_eq!(run.next_backoff(), Some(Duration::from_secs(1)));
}

#[test]
fn verdicts_survive_the_round_trip() {
    for verdict in [Retry::Never, Retry::Backoff, Retry::After(Duration::from_secs(3))] {
        assert_eq!(from_backoff_error(to_backoff_error("down", verdict)), ("down", verdict));
    }
}
