//! Interleaved rounds: one window of ours, one of the peer, again and again, so that drift hits both alike.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds of every measurement.
pub const ROUNDS: usize = 7;

/// Nanoseconds an operation takes, measured over a window.
pub fn nanos(window: Duration, mut operation: impl FnMut()) -> f64 {
    let mut batch = 16u64;
    loop {
        let start = Instant::now();
        for _ in 0..batch {
            operation();
        }
        let elapsed = start.elapsed();
        if elapsed >= window {
            return elapsed.as_nanos() as f64 / batch as f64;
        }
        batch = batch.saturating_mul(if elapsed * 8 < window { 8 } else { 2 });
    }
}

/// Runs each contender once per round, in turn, and returns the rounds of each.
pub fn interleave<const N: usize>(mut contenders: [&mut dyn FnMut() -> f64; N]) -> [Vec<f64>; N] {
    let mut rounds = std::array::from_fn(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (contender, results) in contenders.iter_mut().zip(&mut rounds) {
            results.push(black_box(contender()));
        }
    }
    rounds
}
