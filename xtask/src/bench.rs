//! `cargo xtask bench [area] [--json]`: the bench is a workspace of its own, so that peers stay out of the product.

use crate::shell::{self, Outcome, cargo, root};

/// Builds and runs it; its JSON lines are `{area,row,unit,ours,peer,peer_name,ratio,rounds}`.
pub(crate) fn run(args: &[&str]) -> Outcome {
    let manifest = root().join("crates/tools/bench/Cargo.toml");
    shell::run(
        cargo()
            .args(["run", "--release", "--quiet", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--")
            .args(args),
    )
}
