//! What CI runs: one small file per command. `cargo xtask help` lists them.

mod bench;
mod ci;
mod crates;
mod docs;
mod features;
mod layers;
mod lint;
mod loom;
mod metadata;
mod new_crate;
mod servers;
mod shell;
mod soak;
mod supply;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  ci                         everything CI runs, in order
  test                       finds or installs the servers tests need, then runs every test
  lint                       formatting, and clippy with warnings denied
  layers                     no crate depends on a higher floor; the kernel stays free of frameworks
  features                   each crate alone: default, no default, each feature
  loom                       the lock-free parts under every order of events
  docs                       every public item documented, every link resolved
  supply                     licences, sources and bans of deny.toml
  crates [--check]           writes the crate map and feature tables, or fails when they are stale
  new-crate <wing> <name>    a crate's skeleton
  bench [area] [--json]      our figures beside the peers', in one run
  soak <area>                hours of what CI does for minutes: crash, cron, jobs (--rounds n), work, outbox, sagas, ticks,
                             workflows (--seconds n)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["ci"] => ci::run(),
        ["test", rest @ ..] => test::run(rest),
        ["lint"] => lint::run(),
        ["layers"] => layers::run(),
        ["features"] => features::run(),
        ["loom"] => loom::run(),
        ["docs"] => docs::run(),
        ["supply"] => supply::run(),
        ["crates"] => crates::run(false),
        ["crates", "--check"] => crates::run(true),
        ["new-crate", wing, name] => new_crate::run(wing, name),
        ["bench", rest @ ..] => bench::run(rest),
        ["soak", area, rest @ ..] => soak::run(area, rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(format!("unknown command `{}`\n\n{HELP}", other.join(" "))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
