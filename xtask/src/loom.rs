//! `cargo xtask loom`: the lock-free parts under every order of events.

use crate::shell::{self, Outcome, cargo, root};

/// Crates with a module `explored`, which is compiled with `--cfg loom` only.
const CRATES: [&str; 1] = ["runtime-ratelimit"];

/// Runs them in a target folder of their own: the flag rebuilds everything.
pub(crate) fn run() -> Outcome {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    for name in CRATES {
        let mut command = cargo();
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target.join("loom"));
        shell::run(command.args(["test", "--release", "--locked", "--lib", "-p", name, "explored"]))?;
    }
    Ok(())
}
