//! Interleaved rounds: one window of ours, one of the peer, again and again, so that drift hits both alike.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Rounds of every measurement.
pub const ROUNDS: usize = 7;

/// Rounds of a tail: one in a thousand is soon somebody else's doing.
const TAIL_ROUNDS: usize = 21;

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
pub fn interleave<const N: usize>(contenders: [&mut dyn FnMut() -> f64; N]) -> [Vec<f64>; N] {
    interleave_for(ROUNDS, contenders)
}

/// The same for tails.
pub fn interleave_tails<const N: usize>(contenders: [&mut dyn FnMut() -> f64; N]) -> [Vec<f64>; N] {
    interleave_for(TAIL_ROUNDS, contenders)
}

fn interleave_for<const N: usize>(
    rounds: usize,
    mut contenders: [&mut dyn FnMut() -> f64; N],
) -> [Vec<f64>; N] {
    let mut results = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (contender, results) in contenders.iter_mut().zip(&mut results) {
            results.push(black_box(contender()));
        }
    }
    results
}

/// Nanoseconds per operation and thread while `threads` of them hammer the same thing. The operation gets a number
/// that differs from call to call.
pub fn nanos_on(threads: usize, window: Duration, operation: impl Fn(u64) + Sync) -> f64 {
    let start = Barrier::new(threads);
    let run = |seed: u64| {
        let mut random = seed;
        start.wait();
        nanos(window, || operation(next(&mut random)))
    };
    std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads).map(|n| scope.spawn(move || run(n as u64 * 7919 + 1))).collect();
        let own = run(1);
        let all = others.into_iter().map(|other| other.join().expect("no panic")).fold(own, |a, b| a + b);
        all / threads as f64
    })
}

/// The 99.9th percentile of single operations, each on a key that was made just before, as a request brings it.
pub fn tail_on<K>(threads: usize, key: impl Fn(u64) -> K + Sync, operation: impl Fn(&K) + Sync) -> f64 {
    const OPERATIONS: usize = 300_000;
    let (start, reading) = (Barrier::new(threads), reading());
    let run = |seed: u64| {
        // Written beforehand: a page of the list that is touched for the first time would be the tail itself.
        let (mut random, mut times) = (seed, vec![u64::MAX; OPERATIONS]);
        // As with medians, what was measured is warm: the contender before has emptied the caches.
        for _ in 0..OPERATIONS {
            operation(&key(next(&mut random)));
        }
        start.wait();
        for time in &mut times {
            let key = key(next(&mut random));
            *time = timed(|| operation(&key));
        }
        times
    };
    let mut times = std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads).map(|n| scope.spawn(move || run(n as u64 * 7919 + 1))).collect();
        let mut all = run(1);
        others.into_iter().for_each(|other| all.extend(other.join().expect("no panic")));
        all
    });
    let at = times.len() * 999 / 1000;
    let (_, tail, _) = times.select_nth_unstable(at);
    tail.saturating_sub(reading) as f64
}

/// Nanoseconds of one operation and of reading the clock. The system's clock waits for what came before it, memory
/// included; the bare counter does not, and would lay one operation's wait to the next, or to none.
fn timed(operation: impl FnOnce()) -> u64 {
    let began = Instant::now();
    operation();
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What the clock takes of that.
fn reading() -> u64 {
    let mut times: Vec<u64> = (0..10_000).map(|_| timed(|| ())).collect();
    *times.select_nth_unstable(5_000).1
}

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
