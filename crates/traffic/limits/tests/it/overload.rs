//! A service of ten workers under load, simulated event by event, with the real limit in front.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "microseconds of a minute"
)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime_kernel::ManualClock;
use runtime_limits::{AlgorithmConfig, ConcurrencyConfig, ConcurrencyLimit, Criticality, Permit};

const WORKERS: usize = 10;

/// What came of a run: latencies of admitted calls in microseconds, and the limit, second by second.
struct Run {
    latencies: Vec<u64>,
    limits: Vec<u32>,
}

impl Run {
    fn p99(&mut self) -> u64 {
        self.latencies.sort_unstable();
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

/// Calls per second come at random; each occupies one of ten workers for 10 ms on average, times `slower` at a time.
fn run(
    config: ConcurrencyConfig,
    per_second: f64,
    seconds: u64,
    count_from: u64,
    slower: impl Fn(u64) -> f64,
) -> Run {
    let (clock, mut rng) = (ManualClock::new(), StdRng::seed_from_u64(11));
    let limit = ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap();
    let mut exponential =
        move |mean: f64| (-mean * rng.random_range(f64::MIN_POSITIVE..1.0f64).ln()).max(1.0) as u64;
    let mut arrival = 0;
    let mut busy: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut queue: VecDeque<u64> = VecDeque::new();
    let mut calls: Vec<Option<(u64, Permit)>> = Vec::new();
    let (mut result, mut now) = (Run { latencies: Vec::new(), limits: Vec::new() }, 0);
    while now < seconds * 1_000_000 {
        let done = busy.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let next = done.min(arrival);
        clock.advance(Duration::from_micros(next - now));
        now = next;
        while result.limits.len() < usize::try_from(now / 1_000_000).unwrap() {
            result.limits.push(limit.limit());
        }
        if done <= arrival {
            let Some(Reverse((_, id))) = busy.pop() else { break };
            let (began, permit) = calls[usize::try_from(id).unwrap()].take().unwrap();
            permit.succeeded();
            if began >= count_from * 1_000_000 {
                result.latencies.push(now - began);
            }
        } else {
            arrival = now + exponential(1_000_000.0 / per_second);
            if let Ok(permit) = limit.acquire(Criticality::CriticalPlus) {
                queue.push_back(calls.len() as u64);
                calls.push(Some((now, permit)));
            }
        }
        while busy.len() < WORKERS
            && let Some(id) = queue.pop_front()
        {
            busy.push(Reverse((now + exponential(10_000.0 * slower(now / 1_000_000)), id)));
        }
    }
    result
}

fn algorithms() -> [AlgorithmConfig; 3] {
    [
        AlgorithmConfig::Gradient2,
        AlgorithmConfig::Vegas,
        // What one call in three thousand takes without load.
        AlgorithmConfig::Aimd { timeout: Duration::from_millis(80) },
    ]
}

fn config(algorithm: AlgorithmConfig) -> ConcurrencyConfig {
    let mut config = ConcurrencyConfig::default();
    config.algorithm = algorithm;
    config
}

#[test]
fn under_three_times_the_load_latency_stays_within_twice_and_nine_tenths_of_the_capacity_are_used() {
    let unloaded = run(ConcurrencyConfig::fixed(1_000), 100.0, 60, 0, |_| 1.0).p99();
    for algorithm in algorithms() {
        let mut overloaded = run(config(algorithm), 3_000.0, 60, 20, |_| 1.0);
        let goodput = overloaded.latencies.len() as f64 / 40.0;
        let p99 = overloaded.p99();
        assert!(goodput >= 900.0, "{algorithm:?}: {goodput} per second, limits {:?}", overloaded.limits);
        assert!(
            p99 <= 2 * unloaded,
            "{algorithm:?}: {p99} µs, unloaded {unloaded}, limits {:?}",
            overloaded.limits
        );
    }
}

#[test]
fn without_a_limit_the_same_load_makes_everybody_wait() {
    let mut unlimited = run(ConcurrencyConfig::fixed(1_000_000), 3_000.0, 20, 0, |_| 1.0);
    assert!(unlimited.p99() > 10_000_000, "{}", unlimited.p99());
}

#[test]
fn a_service_that_becomes_slower_is_followed_and_its_recovery_too() {
    for algorithm in [AlgorithmConfig::Gradient2, AlgorithmConfig::Vegas] {
        let slow = |second| if (60..90).contains(&second) { 4.0 } else { 1.0 };
        let run = run(config(algorithm), 2_000.0, 180, 0, slow);
        let mean = |range: std::ops::Range<usize>| {
            f64::from(run.limits[range.clone()].iter().sum::<u32>()) / range.len() as f64
        };
        let (before, after) = (mean(40..60), mean(150..180));
        assert!((0.6..1.7).contains(&(after / before)), "{algorithm:?} {before} {after} {:?}", run.limits);
    }
}

#[test]
fn an_idle_service_does_not_inflate_its_limit() {
    for algorithm in algorithms() {
        let idle = run(config(algorithm), 100.0, 60, 0, |_| 1.0);
        assert!(idle.limits.iter().all(|limit| *limit <= 30), "{algorithm:?} {:?}", idle.limits);
    }
}

/// Netflix's `BlockingAdaptiveExecutorSimulation`: so many workers, calls of 50 to 150 ms, far more than they can do.
#[test]
fn netflix_executor_simulation() {
    for (algorithm, workers) in [
        (AlgorithmConfig::Aimd { timeout: Duration::from_millis(200) }, 20),
        (AlgorithmConfig::Vegas, 50),
        (AlgorithmConfig::Gradient2, 50),
    ] {
        let mut config = config(algorithm);
        (config.initial, config.min) = (if workers == 20 { 10 } else { 100 }, 10);
        let (clock, mut rng) = (ManualClock::new(), StdRng::seed_from_u64(5));
        let limit = ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap();
        let (mut busy, mut queue) = (BinaryHeap::new(), VecDeque::new());
        let mut calls: Vec<Option<(u64, Permit)>> = Vec::new();
        let (mut now, mut done, mut late) = (0u64, 0u64, Vec::new());
        while now < 120_000_000 {
            while let Ok(permit) = limit.acquire(Criticality::CriticalPlus) {
                queue.push_back(calls.len());
                calls.push(Some((now, permit)));
            }
            while busy.len() < workers
                && let Some(id) = queue.pop_front()
            {
                busy.push(Reverse((now + rng.random_range(50_000..150_000), id)));
            }
            let Some(Reverse((at, id))) = busy.pop() else { break };
            clock.advance(Duration::from_micros(at - now));
            now = at;
            let (began, permit) = calls[id].take().unwrap();
            permit.succeeded();
            if now > 30_000_000 {
                done += 1;
                late.push(now - began);
            }
        }
        late.sort_unstable();
        let (rate, p99) = (done as f64 / 90.0, late[late.len() * 99 / 100]);
        let capacity = workers as f64 / 0.1;
        assert!(rate > 0.9 * capacity, "{algorithm:?}: {rate} of {capacity} per second");
        assert!(p99 < 350_000, "{algorithm:?}: p99 {p99} µs");
    }
}
