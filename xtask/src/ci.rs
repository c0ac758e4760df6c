//! `cargo xtask ci`: what must hold before anything lands, cheapest first.

use std::time::Instant;

use crate::shell::Outcome;
use crate::{crates, docs, features, layers, lint, loom, supply, test};

type Step = (&'static str, fn() -> Outcome);

/// Runs every step and stops at the first that fails.
#[expect(clippy::disallowed_methods, reason = "times the steps for the reader of the log")]
pub(crate) fn run() -> Outcome {
    let steps: [Step; 8] = [
        ("layers", layers::run),
        ("supply", supply::run),
        ("crates", || crates::run(true)),
        ("lint", lint::run),
        ("features", features::run),
        ("docs", docs::run),
        ("loom", loom::run),
        ("test", || test::run(&[])),
    ];
    let mut times = Vec::new();
    for (name, step) in steps {
        println!("== {name}");
        let start = Instant::now();
        step().map_err(|error| format!("{name}: {error}"))?;
        times.push(format!("{name} {}s", start.elapsed().as_secs()));
    }
    // On standard error: the log's last line stays the test runner's summary.
    eprintln!("ci: {}", times.join(", "));
    Ok(())
}
