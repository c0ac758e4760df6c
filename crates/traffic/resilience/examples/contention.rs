//! What jitter does for contending writers: the experiment of "Exponential Backoff And Jitter" (Brooker, AWS
//! Architecture Blog, 2015) with this crate's policies.
//!
//! So many clients want to write one row under optimistic concurrency. Each reads the row's version, writes under it,
//! and when another was faster, waits as its policy says and starts over. Messages take 10 ms, give or take 2.
//!
//! `cargo run --release -p runtime-resilience --example contention -- [plot.svg]`
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "an experiment with small numbers"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime_resilience::{Delays, Jitter, RetryPolicy};

/// Milliseconds until everybody has written, and how many writes that took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Result {
    pub(crate) millis: f64,
    pub(crate) writes: f64,
}

/// What has arrived: at the server a read or a write, at the client a version or an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Read,
    Version { version: u64 },
    Write { version: u64 },
    Answer { written: bool },
}

/// The policies of the experiment: 5 ms to 2 s.
pub(crate) fn policies() -> [(&'static str, Option<RetryPolicy>); 5] {
    let (base, cap) = (Duration::from_millis(5), Duration::from_secs(2));
    let exponential = RetryPolicy::exponential(base, cap).unwrap().with_max_attempts(1_000).unwrap();
    let jittered = |jitter| Some(exponential.clone().with_jitter(jitter).unwrap());
    let decorrelated = RetryPolicy::decorrelated(base, cap).unwrap().with_max_attempts(1_000).unwrap();
    [
        ("none", None),
        ("exponential", jittered(Jitter::None)),
        ("decorrelated", Some(decorrelated)),
        ("equal jitter", jittered(Jitter::Equal)),
        ("full jitter", jittered(Jitter::Full)),
    ]
}

/// One run.
pub(crate) fn run(clients: usize, policy: Option<&RetryPolicy>, seed: u64) -> Result {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut delays: Vec<Option<Delays<'_, StdRng>>> = (0..clients)
        .map(|n| policy.map(|policy| policy.delays(StdRng::seed_from_u64(seed ^ (n as u64) << 20))))
        .collect();
    let mut events = BinaryHeap::new();
    let mut number = 0_u64;
    let mut at = |events: &mut BinaryHeap<_>, micros: u64, client: usize, event: Event| {
        number += 1;
        events.push(Reverse((micros, number, client, event)));
    };
    // The sum of twelve uniform numbers is close enough to a normal one.
    let mut travel = move || {
        let normal: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        ((10.0 + 2.0 * normal).abs() * 1_000.0) as u64
    };
    for client in 0..clients {
        at(&mut events, travel(), client, Event::Read);
    }
    let (mut version, mut writes, mut end, mut left) = (0, 0_u64, 0, clients);
    while let Some(Reverse((now, _, client, event))) = events.pop() {
        match event {
            Event::Read => at(&mut events, now + travel(), client, Event::Version { version }),
            Event::Version { version } => {
                at(&mut events, now + travel(), client, Event::Write { version });
            }
            Event::Write { version: known } => {
                writes += 1;
                let written = known == version;
                version += u64::from(written);
                at(&mut events, now + travel(), client, Event::Answer { written });
            }
            Event::Answer { written: true } => (end, left) = (now, left - 1),
            Event::Answer { written: false } => {
                let delay = delays.get_mut(client).and_then(Option::as_mut).and_then(Iterator::next);
                let wait = delay.map_or(0, |delay| delay.as_micros() as u64);
                at(&mut events, now + wait + travel(), client, Event::Read);
            }
        }
    }
    assert_eq!(left, 0, "everybody has written");
    Result { millis: end as f64 / 1_000.0, writes: writes as f64 }
}

/// The mean of so many runs.
pub(crate) fn mean(runs: u64, clients: usize, policy: Option<&RetryPolicy>) -> Result {
    let runs: Vec<_> = (0..runs).map(|seed| run(clients, policy, seed)).collect();
    let of = |part: fn(&Result) -> f64| runs.iter().map(part).sum::<f64>() / runs.len() as f64;
    Result { millis: of(|run| run.millis), writes: of(|run| run.writes) }
}

const CLIENTS: [usize; 5] = [10, 50, 100, 150, 190];

#[allow(dead_code, reason = "the tests run the experiment without the table")]
fn main() -> std::io::Result<()> {
    let rows: Vec<_> = policies()
        .into_iter()
        .map(|(name, policy)| (name, CLIENTS.map(|clients| mean(30, clients, policy.as_ref()))))
        .collect();
    println!("| backoff | {} |", CLIENTS.map(|n| format!("{n} clients")).join(" | "));
    println!("|---|{}", "---:|".repeat(CLIENTS.len()));
    for (name, results) in &rows {
        let cells = results.map(|result| format!("{:.0} ms / {:.0}", result.millis, result.writes));
        println!("| {name} | {} |", cells.join(" | "));
    }
    match std::env::args().nth(1) {
        Some(path) => std::fs::write(path, plot(&rows)),
        None => Ok(()),
    }
}

/// Writes it took, over the number of clients.
fn plot(rows: &[(&str, [Result; 5])]) -> String {
    const COLOURS: [&str; 5] = ["#888888", "#d62728", "#9467bd", "#ff7f0e", "#1f77b4"];
    let most = rows.iter().flat_map(|(_, results)| results).map(|result| result.writes).fold(1.0, f64::max);
    let x = |clients: usize| 60.0 + clients as f64 / 200.0 * 500.0;
    let y = |writes: f64| 320.0 - writes / most * 280.0;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 370\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"640\" height=\"370\" fill=\"white\"/>\n\
         <path d=\"M60 40V320H560\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"310\" y=\"358\" text-anchor=\"middle\">contending clients</text>\n\
         <text x=\"60\" y=\"28\">writes until everybody has written (mean of 30 runs)</text>\n",
    );
    for clients in CLIENTS {
        let _ =
            writeln!(svg, "<text x=\"{:.0}\" y=\"336\" text-anchor=\"middle\">{clients}</text>", x(clients));
    }
    for share in [0.25, 0.5, 0.75, 1.0] {
        let writes = most * share;
        let _ = writeln!(
            svg,
            "<text x=\"54\" y=\"{:.0}\" text-anchor=\"end\">{writes:.0}</text>",
            y(writes) + 4.0
        );
    }
    for (nth, ((name, results), colour)) in rows.iter().zip(COLOURS).enumerate() {
        let points: Vec<_> = CLIENTS
            .iter()
            .zip(results)
            .map(|(clients, result)| format!("{:.1},{:.1}", x(*clients), y(result.writes)))
            .collect();
        let points = points.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let at = 60 + nth * 18;
        let _ = writeln!(svg, "<text x=\"80\" y=\"{at}\" fill=\"{colour}\">{name}</text>");
    }
    svg.push_str("</svg>\n");
    svg
}
