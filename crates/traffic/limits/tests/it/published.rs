//! The scenarios Netflix (`VegasLimitTest`, `AIMDLimitTest`, `BlockingAdaptiveExecutorSimulation` of
//! concurrency-limits) and Envoy (`gradient_controller_test.cc` of its adaptive concurrency filter) publish, told anew
//! for our algorithms. Where ours differs, the row says why.

use std::time::Duration;

use runtime_limits::{Aimd, Algorithm, Gradient2, Sample, Vegas};

fn sample(millis: u64, in_flight: u32) -> Sample {
    Sample { latency: Duration::from_millis(millis), in_flight, dropped: false }
}

/// What the limit is after each of these windows of a full service.
fn after<A: Algorithm>(algorithm: &mut A, millis: u64, windows: usize) -> Vec<u32> {
    (0..windows).map(|_| algorithm.update(&sample(millis, algorithm.limit()))).collect()
}

/// Beyond the first measurement, which Netflix does not have.
fn measured<A: Algorithm>(mut algorithm: A, millis: u64) -> A {
    let least = algorithm.limit();
    while algorithm.limit() == least {
        algorithm.update(&sample(millis, least));
    }
    algorithm
}

#[test]
fn netflix_vegas() {
    let vegas = || measured(Vegas::new(10, 1..=20), 10);
    assert_eq!(vegas().limit(), 10, "initialLimit");
    // Kept: it grows while there is no queue. Different: by six steps at once, as their later versions do.
    assert_eq!(after(&mut vegas(), 10, 2), [16, 20], "increaseLimit");
    let mut falls = vegas();
    let high = falls.update(&sample(10, 10));
    // Kept: five times the latency shrinks it. Different: by a step per window, not at once to what fits.
    assert!(falls.update(&sample(50, 16)) < high, "decreaseLimit");
    let mut stays = vegas();
    let high = stays.update(&sample(10, 10));
    assert_eq!(stays.update(&sample(14, 16)), high, "noChangeIfWithinThresholds");
}

#[test]
fn netflix_aimd() {
    let aimd = || Aimd::new(10, 1..=200, Duration::from_secs(1));
    assert_eq!(aimd().limit(), 10, "testDefault");
    assert_eq!(aimd().update(&sample(1, 10)), 11, "increaseOnSuccess");
    assert_eq!(aimd().update(&Sample { dropped: true, ..sample(1, 1) }), 9, "decreaseOnDrops");
    let mut full = Aimd::new(21, 0..=21, Duration::from_secs(1));
    assert_eq!(full.update(&sample(1, 21)), 21, "successOverflow");
}

#[test]
fn envoy_measures_at_the_least_limit_and_returns_to_the_one_before() {
    let mut gradient = Gradient2::new(50, 3..=1_000);
    assert_eq!(gradient.limit(), 3, "MinRTTLogicTest: measuring from the start");
    gradient = measured(gradient, 5);
    let grown = after(&mut gradient, 4, 5);
    assert!(grown.is_sorted() && grown[4] > 50, "MinRTTReturnToPreviousLimit: {grown:?}");
    let mut before = gradient.limit();
    while gradient.limit() != 3 {
        before = gradient.limit();
        gradient.update(&sample(4, before));
    }
    assert_eq!(
        after(&mut gradient, 5, 2),
        [3, 3],
        "MinRTTRescheduleTest: nothing moves it while it is measured"
    );
    assert_eq!(gradient.update(&sample(5, 3)), before, "MinRTTReturnToPreviousLimit");
}

#[test]
fn envoy_disregards_calls_that_began_before_the_measurement() {
    let mut gradient = measured(Gradient2::new(50, 2..=1_000), 13);
    while gradient.limit() != 2 {
        gradient.update(&sample(13, gradient.limit()));
    }
    // MinRTTEpoch: they took five minutes, and more were under way than are now.
    for _ in 0..25 {
        assert_eq!(gradient.update(&sample(300_000, 40)), 2);
    }
    after(&mut gradient, 13, 3);
    let high = gradient.limit();
    assert!(gradient.update(&sample(26, high)) < high, "the baseline is 13 ms, not five minutes");
}

#[test]
fn envoy_grows_within_the_buffer_and_shrinks_beyond_it_by_half_at_most() {
    // MinRTTBufferTest: a buffer of one half; ours is the tolerance of 1.5.
    let mut gradient = measured(Gradient2::new(50, 3..=1_000), 5);
    let mut last = gradient.limit();
    for limit in after(&mut gradient, 6, 10) {
        assert!(limit > last);
        last = limit;
    }
    // ConcurrencyLimitBehaviorTestBasic: it shrinks, never below the least, never by more than half.
    for _ in 0..10 {
        let limit = gradient.update(&sample(20, last));
        assert!(limit < last && limit >= 3 && limit * 2 >= last, "{last} {limit}");
        last = limit;
    }
}

#[test]
fn envoy_measures_anew_when_it_is_stuck_at_the_least() {
    // ConsecutiveMinConcurrencyReset: the service has become slower for good.
    let mut gradient = measured(Gradient2::new(8, 7..=1_000), 5);
    let stuck = after(&mut gradient, 40, 10);
    assert!(stuck[1..].iter().all(|limit| *limit == 7), "{stuck:?}");
    let grown = after(&mut gradient, 40, 15);
    assert!(grown.is_sorted() && grown[14] > 8, "with what calls take now: {grown:?}");
}

#[test]
fn without_samples_nothing_moves() {
    // NoSamplesTest: a window without a sample is no window; see `concurrency.rs`. One with few calls neither.
    let mut gradient = measured(Gradient2::new(50, 3..=1_000), 5);
    for _ in 0..100 {
        assert_eq!(gradient.update(&sample(5, 1)), 50);
    }
}
