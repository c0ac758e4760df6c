//! The algorithms, step by step.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small limits")]

use std::time::Duration;

use runtime_limits::{Aimd, Algorithm, Gradient2, Sample, Vegas};

fn sample(millis: u64, in_flight: u32) -> Sample {
    Sample { latency: Duration::from_millis(millis), in_flight, dropped: false }
}

fn dropped(millis: u64, in_flight: u32) -> Sample {
    Sample { dropped: true, ..sample(millis, in_flight) }
}

#[test]
fn aimd_grows_by_one_while_it_is_used_and_shrinks_by_a_tenth() {
    let mut aimd = Aimd::new(10, 1..=200, Duration::from_secs(5));
    for (sample, limit) in [
        (sample(1, 10), 11),
        (sample(1, 5), 11),
        (dropped(1, 11), 9),
        (sample(6_000, 9), 8),
        (sample(1, 4), 8),
        (sample(1, 5), 9),
    ] {
        assert_eq!(aimd.update(&sample), limit, "{sample:?}");
    }
    let mut least = Aimd::new(1, 1..=2, Duration::from_secs(5));
    assert_eq!(
        [least.update(&dropped(1, 1)), least.update(&sample(1, 2)), least.update(&sample(1, 2))],
        [1, 2, 2]
    );
}

/// Through the first measurement: calls take 10 ms without load.
fn measured<A: Algorithm>(mut algorithm: A, least: u32, initial: u32) -> A {
    assert_eq!(algorithm.limit(), least, "measured at the least limit");
    assert_eq!(algorithm.update(&sample(90, least + 5)), least, "calls that began before tell nothing");
    assert_eq!([algorithm.update(&sample(10, least)), algorithm.update(&sample(10, least))], [least; 2]);
    assert_eq!(algorithm.update(&sample(10, least)), initial);
    algorithm
}

#[test]
fn vegas_grows_without_a_queue_stays_with_a_small_one_and_shrinks_with_a_long_one() {
    let mut vegas = measured(Vegas::new(10, 1..=20), 1, 10);
    for (sample, limit, why) in [
        (sample(10, 1), 10, "nobody asks for more"),
        (sample(10, 10), 16, "no queue"),
        (sample(15, 16), 16, "a queue of about five, which is wanted"),
        (sample(50, 16), 14, "a queue of more than six"),
        (dropped(10, 14), 13, "a call was dropped"),
        (sample(10, 14), 20, "no queue"),
        (sample(10, 20), 20, "not beyond its most"),
    ] {
        assert_eq!(vegas.update(&sample), limit, "{why}");
    }
}

#[test]
fn gradient_keeps_a_limit_that_is_not_used_and_gives_way_to_latency() {
    let mut gradient = measured(Gradient2::new(100, 2..=200), 2, 100);
    for _ in 0..20 {
        assert_eq!(gradient.update(&sample(10, 20)), 100, "less than half is used");
    }
    let last = |gradient: &mut Gradient2, millis, windows| {
        (0..windows).map(|_| gradient.update(&sample(millis, 200))).last().unwrap()
    };
    let high = last(&mut gradient, 10, 50);
    let low = last(&mut gradient, 100, 50);
    let again = last(&mut gradient, 10, 50);
    assert!(high > 150 && low < 20 && again > 2 * low, "{high} {low} {again}");
    assert_eq!(gradient.update(&dropped(10, 200)), {
        let before = f64::from(again);
        (before * 0.8 + (before * 0.5 + before.sqrt()) * 0.2) as u32
    });
}

#[test]
fn the_baseline_is_measured_anew_so_that_overload_does_not_become_normal() {
    let mut gradient = measured(Gradient2::new(100, 10..=200), 10, 100);
    let limits: Vec<_> = (0..1_000).map(|_| gradient.update(&sample(100, 200))).collect();
    assert!(limits.iter().filter(|limit| **limit == 10).count() >= 100, "it goes down to measure");
    assert!(
        limits[900..].iter().all(|limit| *limit < 30),
        "ten times the latency stays too much: {limits:?}"
    );
}

#[test]
fn no_algorithm_leaves_its_bounds_whatever_it_sees() {
    let samples =
        [sample(0, 0), sample(1, 1_000_000), sample(60_000, 1), dropped(0, 0), dropped(60_000, u32::MAX)];
    let bounds = 3..=50;
    let algorithms: [Box<dyn Algorithm>; 3] = [
        Box::new(Aimd::new(10, bounds.clone(), Duration::from_secs(1))),
        Box::new(Vegas::new(10, bounds.clone())),
        Box::new(Gradient2::new(10, bounds.clone())),
    ];
    for mut algorithm in algorithms {
        for n in 0..5_000 {
            let limit = algorithm.update(&samples[(n * 7 + n / 3) % samples.len()]);
            assert!(bounds.contains(&limit), "{algorithm:?}");
        }
    }
}
