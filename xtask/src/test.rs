//! `cargo xtask test`: the servers, then every test, then every example in the documentation.

use crate::servers;
use crate::shell::{self, Outcome, cargo, has_subcommand};

/// Runs everything; extra arguments go to the runner.
pub(crate) fn run(rest: &[&str]) -> Outcome {
    servers::ensure()?;
    // Tests drive the real binary.
    shell::run(cargo().args(["build", "--locked", "-p", "runtime-server"]))?;
    let everything = ["--workspace", "--all-features", "--locked"];
    shell::run(cargo().args(["test", "--doc"]).args(everything).args(["--exclude", "xtask"]))?;
    // Last, so that the run ends with the runner's own summary.
    if has_subcommand("nextest") {
        shell::run(cargo().args(["nextest", "run"]).args(everything).args(rest))
    } else {
        shell::run(
            cargo()
                .args(["test", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"])
                .args(everything)
                .args(rest),
        )
    }
}
