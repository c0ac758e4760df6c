//! `cargo xtask lint`: formatting, and clippy with warnings denied.

use crate::shell::{self, Outcome, cargo};

/// Formatting first: it is the cheaper of the two.
pub(crate) fn run() -> Outcome {
    shell::run(cargo().args(["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    shell::run(cargo().args(clippy))
}
