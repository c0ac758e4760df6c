//! `cargo xtask soak <area> [--rounds n | --seconds n]`: the suite's own crash tests, for as long as you like.

use crate::servers;
use crate::shell::{self, Outcome, cargo};

/// Runs an area's crash tests with the given number of rounds (200 unless told); of `work`, the history checker for so
/// many seconds (an hour unless told).
pub(crate) fn run(area: &str, rest: &[&str]) -> Outcome {
    if area == "work" {
        return work(rest);
    }
    let rounds = match rest {
        [] => "200",
        ["--rounds", n] if n.parse::<u32>().is_ok_and(|n| n > 0) => n,
        other => return Err(format!("expected `--rounds n`, not `{}`", other.join(" "))),
    };
    let filter = match area {
        "jobs" => "it::soak",
        other => return Err(format!("unknown area `{other}`: expected jobs or work")),
    };
    servers::ensure()?;
    let args = ["test", "--release", "--locked", "-p", "runtime-server", "--test", "it", filter];
    shell::run(
        cargo().args(args).args(["--", "--nocapture", "--test-threads=1"]).env("RUNTIME_SOAK_ROUNDS", rounds),
    )
}

/// Jobs under faults, each run with another seed.
fn work(rest: &[&str]) -> Outcome {
    let seconds = match rest {
        [] => "3600",
        ["--seconds", n] if n.parse::<u32>().is_ok_and(|n| n > 0) => n,
        other => return Err(format!("expected `--seconds n`, not `{}`", other.join(" "))),
    };
    servers::ensure()?;
    let seed = std::process::id().to_string();
    let args = [
        "run",
        "--release",
        "--locked",
        "-p",
        "runtime-workcheck",
        "--",
        "--seconds",
        seconds,
        "--seed",
        &seed,
    ];
    shell::run(cargo().args(args))
}
