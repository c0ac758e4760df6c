//! `cargo xtask loom`: the lock-free parts under every order of events.

use crate::shell::{self, Outcome, cargo, root};

/// Crates with a module `explored`, which is compiled with `--cfg runtime_loom` only: a flag of our own, because some
/// dependencies change at `--cfg loom`.
const CRATES: [&str; 1] = ["runtime-ratelimit"];

/// Runs them in a target folder of their own: the flag rebuilds everything.
pub(crate) fn run() -> Outcome {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    for name in CRATES {
        let mut command = cargo();
        command.env("RUSTFLAGS", "--cfg runtime_loom").env("CARGO_TARGET_DIR", target.join("loom"));
        shell::run(command.args([
            "test",
            "--release",
            "--locked",
            "--lib",
            "--no-default-features",
            "-p",
            name,
            "explored",
        ]))?;
    }
    Ok(())
}
