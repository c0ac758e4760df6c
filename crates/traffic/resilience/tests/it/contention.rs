//! What the contention experiment shows: jitter is worth having, and full jitter most.

#[path = "../../examples/contention.rs"]
mod experiment;

use experiment::{mean, policies};

#[test]
fn full_jitter_needs_a_third_of_the_writes_and_exponential_alone_ten_times_as_long() {
    for (clients, share) in [(50, 0.55), (100, 0.4)] {
        let [none, exponential, _, equal, full] =
            policies().map(|(_, policy)| mean(5, clients, policy.as_ref()));
        assert!(full.writes <= share * none.writes, "{full:?} {none:?}");
        assert!(full.millis <= equal.millis, "{full:?} {equal:?}");
        assert!(exponential.millis >= 10.0 * full.millis, "{exponential:?} {full:?}");
    }
}

#[test]
fn without_backoff_writers_crowd_each_other_out() {
    let none = mean(30, 10, None);
    assert!((330.0..420.0).contains(&none.millis) && (40.0..60.0).contains(&none.writes), "{none:?}");
}
