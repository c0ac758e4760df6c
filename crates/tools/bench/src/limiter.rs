//! Keyed token buckets beside governor's: time, tails and memory.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota};
use runtime_ratelimit::{Rate, RateLimiter};

use crate::measure::{interleave, interleave_tails, nanos_on, tail_on};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(60);
const KEYS: u64 = 100_000;
const MEMORY_KEYS: usize = 1_000_000;

/// Never refuses, however fast it is asked: what is measured is a grant.
const PER_SECOND: u32 = 1_000_000_000;

fn quota() -> Quota {
    Quota::per_second(NonZeroU32::new(PER_SECOND).expect("not zero"))
}

fn rate() -> Rate {
    Rate::per_second(PER_SECOND).expect("a rate")
}

fn text(key: u64) -> String {
    format!("tenant-7/user-{key:08}")
}

/// Hot key, many keys, memory.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for threads in [1, 2] {
        rows.extend(timed(threads));
    }
    rows.extend(memory());
    rows
}

fn timed(threads: usize) -> Vec<Row> {
    let (ours, our_strings, rate) = (RateLimiter::new(100_000), RateLimiter::new(100_000), rate());
    let numbers = DefaultKeyedRateLimiter::<u64>::keyed(quota());
    let strings = DefaultKeyedRateLimiter::<String>::keyed(quota());
    let direct = DefaultDirectRateLimiter::direct(quota());
    let names: Vec<String> = (0..KEYS).map(text).collect();
    for (key, name) in (0..KEYS).zip(&names) {
        ours.check(&key, rate).expect("granted");
        our_strings.check(name, rate).expect("granted");
        numbers.check_key(&key).expect("granted");
        strings.check_key(name).expect("granted");
    }
    let name = |n: u64| &names[(n % KEYS) as usize];
    let our_hot = |_: u64| {
        black_box(ours.check(&7_u64, rate).is_ok());
    };
    let our_number = |n: u64| {
        black_box(ours.check(&(n % KEYS), rate).is_ok());
    };
    let our_name = |name: &String| {
        black_box(our_strings.check(name, rate).is_ok());
    };
    let our_string = |n: u64| our_name(name(n));
    let their_hot = |_: u64| {
        black_box(numbers.check_key(&7).is_ok());
    };
    let their_number = |n: u64| {
        black_box(numbers.check_key(&(n % KEYS)).is_ok());
    };
    let their_name = |name: &String| {
        black_box(strings.check_key(name).is_ok());
    };
    let their_string = |n: u64| their_name(name(n));
    let their_direct = |_: u64| {
        black_box(direct.check().is_ok());
    };

    // The least any table of this size can cost: one word of it, the clock, and the swap.
    let (clock, words) = (quanta::Clock::new(), (0..2 * KEYS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    let bare = |n: u64| {
        let word = &words[(n % KEYS) as usize * 2];
        let seen = word.load(Ordering::Acquire);
        let next = seen.max(clock.raw());
        black_box(word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire).is_ok());
    };

    let medians = interleave([
        &mut || nanos_on(threads, WINDOW, our_hot),
        &mut || nanos_on(threads, WINDOW, their_hot),
        &mut || nanos_on(threads, WINDOW, our_number),
        &mut || nanos_on(threads, WINDOW, their_number),
        &mut || nanos_on(threads, WINDOW, our_string),
        &mut || nanos_on(threads, WINDOW, their_string),
        &mut || nanos_on(threads, WINDOW, their_direct),
        &mut || nanos_on(threads, WINDOW, bare),
    ]);
    let (number, text) = (|n: u64| n % KEYS, |n: u64| text(n % KEYS));
    let tails = interleave_tails([
        &mut || tail_on(threads, number, |_| our_hot(0)),
        &mut || tail_on(threads, number, |_| their_hot(0)),
        &mut || tail_on(threads, number, |n| our_number(*n)),
        &mut || tail_on(threads, number, |n| their_number(*n)),
        &mut || tail_on(threads, text, our_name),
        &mut || tail_on(threads, text, their_name),
        &mut || tail_on(threads, number, |n| bare(*n)),
    ]);
    let row = |name: &str, ours: &[f64], peer: (&str, &[f64])| {
        let name = format!("{name}, {threads} thread{}", if threads == 1 { "" } else { "s" });
        Row::of("limiter", &name, "ns", Better::Less, ours, peer)
    };
    let keyed = "governor 0.10 keyed";
    let least = "one word of 1.6 MB, the clock and a compare-and-swap";
    vec![
        row("hot key", &medians[0], (keyed, &medians[1])),
        row("hot key beside a single bucket", &medians[0], ("governor 0.10 direct", &medians[6])),
        row("100k keys `u64`", &medians[2], (keyed, &medians[3])),
        row("100k keys `String`", &medians[4], (keyed, &medians[5])),
        row("hot key, p99.9", &tails[0], (keyed, &tails[1])),
        row("100k keys `u64`, p99.9", &tails[2], (keyed, &tails[3])),
        row("100k keys `String`, p99.9", &tails[4], (keyed, &tails[5])),
        row("100k keys `u64` beside what is possible", &medians[2], (least, &medians[7])),
        row("100k keys `u64` beside what is possible, p99.9", &tails[2], (least, &tails[6])),
        row("what is possible with 100k keys, p99.9", &tails[6], (keyed, &tails[3])),
    ]
}

fn memory() -> Vec<Row> {
    let measure = |which: &str| {
        let program = std::env::current_exe().expect("our own path");
        let out = Command::new(program).args(["rss", which]).output().expect("it ran");
        String::from_utf8_lossy(&out.stdout).trim().parse::<f64>().expect("a number")
    };
    let [ours, numbers, strings] =
        interleave([&mut || measure("ours"), &mut || measure("governor-u64"), &mut || {
            measure("governor-string")
        }]);
    let row = |name, peer| Row::of("limiter", name, "B/key", Better::Less, &ours, peer);
    vec![
        row("1M keys `u64`, resident memory", ("governor 0.10 keyed (unbounded)", &numbers)),
        row("1M keys `String`, resident memory", ("governor 0.10 keyed (unbounded)", &strings)),
    ]
}

/// Prints the resident bytes per key of one contender, in a process of its own.
pub fn rss(which: &str) {
    let before = resident();
    match which {
        "ours" => {
            let (limiter, rate) = (RateLimiter::new(MEMORY_KEYS), rate());
            for key in 0..MEMORY_KEYS {
                limiter.check(&key, rate).expect("granted");
            }
            report(before);
            drop(limiter);
        }
        "governor-u64" => {
            let limiter = DefaultKeyedRateLimiter::<u64>::keyed(quota());
            for key in 0..MEMORY_KEYS as u64 {
                limiter.check_key(&key).expect("granted");
            }
            report(before);
            drop(limiter);
        }
        _ => {
            let limiter = DefaultKeyedRateLimiter::<String>::keyed(quota());
            for key in 0..MEMORY_KEYS as u64 {
                limiter.check_key(&text(key)).expect("granted");
            }
            report(before);
            drop(limiter);
        }
    }
}

fn report(before: f64) {
    println!("{}", (resident() - before) / MEMORY_KEYS as f64);
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("a number") * 1024.0
}
