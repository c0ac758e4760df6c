//! How often the analysis is wrong about a canary that is no worse, and how soon it finds one that is: the table of
//! `docs/comparison.md`. `cargo run --release -p runtime-rollout --example analysis`
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of requests"
)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime_rollout::{Analysis, AnalysisConfig, Counts, Verdict};

const RUNS: u64 = 1_000;
/// 200 requests a second, looked at every second.
const PER_SECOND: u64 = 200;

/// When it was rolled back, if ever, and how many of the canary's requests had failed.
fn run(seed: u64, share: f64, seconds: u64, primary: f64, canary: f64) -> (Option<u64>, u64) {
    let config = AnalysisConfig::default();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut a, mut b, mut analysis) = (Counts::default(), Counts::default(), Analysis::default());
    for second in 1..=seconds {
        for _ in 0..PER_SECOND {
            let (side, chance) =
                if rng.random_range(0.0..1.0) < share { (&mut b, canary) } else { (&mut a, primary) };
            side.requests += 1;
            side.failed += u64::from(rng.random_range(0.0..1.0) < chance);
        }
        if analysis.look(&config, a, b) != Verdict::NoWorse {
            return (Some(second), b.failed);
        }
    }
    (None, b.failed)
}

fn main() {
    println!("no worse: rolled back within 10 minutes (600 looks), of {RUNS} runs, alpha 1 %");
    println!("| share | fails | rolled back |\n|---|---|---|");
    for (share, fails) in [(0.01, 0.01), (0.05, 0.001), (0.05, 0.01), (0.25, 0.01), (0.5, 0.05)] {
        let wrong = (0..RUNS).filter(|seed| run(*seed, share, 600, fails, fails).0.is_some()).count();
        println!(
            "| {:.0} % | {:.1} % | {:.1} % |",
            share * 100.0,
            fails * 100.0,
            wrong as f64 / RUNS as f64 * 100.0
        );
    }
    println!("\nworse: of {RUNS} runs of an hour");
    println!(
        "| share | primary fails | canary fails | found | after, median | canary's failures till then, median / p99 |"
    );
    println!("|---|---|---|---|---|---|");
    for (share, primary, canary) in [
        (0.01, 0.01, 0.5),
        (0.01, 0.01, 0.1),
        (0.05, 0.01, 0.1),
        (0.05, 0.001, 0.02),
        (0.25, 0.01, 0.03),
        (0.5, 0.05, 0.1),
    ] {
        let mut found: Vec<_> = (0..RUNS).map(|seed| run(seed, share, 3_600, primary, canary)).collect();
        found.sort_unstable();
        let times: Vec<_> = found.iter().filter_map(|(after, _)| *after).collect();
        let mut failed: Vec<_> = found.iter().map(|(_, failed)| *failed).collect();
        failed.sort_unstable();
        let at =
            |sorted: &[u64], percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or(0);
        println!(
            "| {:.0} % | {:.1} % | {:.0} % | {:.1} % | {} s | {} / {} |",
            share * 100.0,
            primary * 100.0,
            canary * 100.0,
            times.len() as f64 / RUNS as f64 * 100.0,
            at(&times, 50),
            at(&failed, 50),
            at(&failed, 99)
        );
    }
}
