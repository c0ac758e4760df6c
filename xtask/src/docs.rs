//! `cargo xtask docs`: every public item documented, every link resolved; the book too where mdBook is installed.

use crate::shell::{self, Outcome, cargo, on_path, root};

/// Builds the documentation with warnings denied.
pub(crate) fn run() -> Outcome {
    let flags = "-D warnings -D missing_docs";
    let args = ["doc", "--workspace", "--no-deps", "--all-features", "--locked", "--exclude", "xtask"];
    shell::run(cargo().args(args).env("RUSTDOCFLAGS", flags))?;
    if on_path("mdbook") {
        shell::run(std::process::Command::new("mdbook").args(["build", "docs"]).current_dir(root()))?;
    }
    Ok(())
}
