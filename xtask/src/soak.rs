//! `cargo xtask soak <area> [--rounds n | --seconds n]`: what the suite does for minutes, for as long as you like.

use crate::servers;
use crate::shell::{self, Outcome, cargo};

/// Runs an area's crash tests with the given number of rounds (200 unless told); of `work`, the history checker for so
/// many seconds (an hour unless told), of `outbox`, `sagas`, `workflows` and `ticks` theirs (a minute); of `cron`, every minute of
/// twenty years of every zone so many times (once unless told).
pub(crate) fn run(area: &str, rest: &[&str]) -> Outcome {
    match area {
        "work" => return check(&[], "3600", rest),
        "outbox" | "sagas" | "workflows" | "ticks" => return check(&[area], "60", rest),
        _ => {}
    }
    match (area, rest) {
        ("cron", rest) => return cron(rest),
        ("crash", []) => return crash(),
        _ => {}
    }
    let rounds = match rest {
        [] => "200",
        ["--rounds", n] if n.parse::<u32>().is_ok_and(|n| n > 0) => n,
        other => return Err(format!("expected `--rounds n`, not `{}`", other.join(" "))),
    };
    let filter = match area {
        "jobs" => "it::soak",
        other => {
            let areas = "crash, cron, jobs, work, outbox, sagas, ticks or workflows";
            return Err(format!("unknown area `{other}`: expected {areas}"));
        }
    };
    servers::ensure()?;
    let args = ["test", "--release", "--locked", "-p", "runtime-server", "--test", "it", filter];
    shell::run(
        cargo().args(args).args(["--", "--nocapture", "--test-threads=1"]).env("RUNTIME_SOAK_ROUNDS", rounds),
    )
}

fn crash() -> Outcome {
    servers::ensure()?;
    let args = [
        "test",
        "--release",
        "--locked",
        "-p",
        "runtime-jobs",
        "--all-features",
        "--test",
        "it",
        "it::crash",
    ];
    shell::run(cargo().args(args).env("RUNTIME_CRASH_EVERY", "1"))
}

/// The history checker, each run with another seed; what is not about its length it is told as it is.
fn check(area: &[&str], seconds: &str, rest: &[&str]) -> Outcome {
    let (seconds, rest) = match rest {
        ["--seconds", n, rest @ ..] if n.parse::<u32>().is_ok_and(|n| n > 0) => (*n, rest),
        ["--seconds", ..] => return Err(format!("expected `--seconds n`, not `{}`", rest.join(" "))),
        rest => (seconds, rest),
    };
    servers::ensure()?;
    let seed = std::process::id().to_string();
    let run = ["run", "--release", "--locked", "-p", "runtime-workcheck", "--"];
    shell::run(cargo().args(run).args(area).args(["--seconds", seconds, "--seed", &seed]).args(rest))
}

/// Cron expressions beside the oracle and beside croner, each run with another seed.
fn cron(rest: &[&str]) -> Outcome {
    let rounds = match rest {
        [] => 1,
        ["--rounds", n] => n.parse::<u32>().map_err(|_| format!("`{n}` is no number of rounds"))?.max(1),
        other => return Err(format!("expected `--rounds n`, not `{}`", other.join(" "))),
    };
    let features = ["--no-default-features", "--test", "it"];
    let args = ["test", "--release", "--locked", "-p", "runtime-cron"];
    shell::run(
        cargo()
            .args(args)
            .args(features)
            .args(["--", "--nocapture", "it::years", "it::zones", "it::oracle"])
            .env("RUNTIME_CRON_SEED", std::process::id().to_string())
            .env("RUNTIME_CRON_SOAK_ROUNDS", rounds.to_string())
            .env("RUNTIME_CRON_DIFFERENTIAL_CASES", (u64::from(rounds) * 100_000).to_string())
            .env("RUNTIME_CRON_ORACLE_CASES", (u64::from(rounds) * 20_000).to_string()),
    )
}
