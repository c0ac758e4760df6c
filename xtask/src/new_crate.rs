//! `cargo xtask new-crate <wing> <name>`: a crate's skeleton, as every crate has it.

use crate::metadata::WINGS;
use crate::shell::{Outcome, root};

const MANIFEST: &str = r#"[package]
name = "runtime-NAME"
description = "SUMMARY"
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
readme = "README.md"

[package.metadata.runtime]
wing = "WING"
summary = "SUMMARY"

[lints]
workspace = true

[features]
default = ["module"]
## The kernel module that wires the crate into an app.
module = ["runtime-kernel/app"]

[dependencies]
runtime-kernel = { workspace = true }
"#;

/// Writes the skeleton; refuses a wing that does not exist and a crate that does.
pub(crate) fn run(wing: &str, name: &str) -> Outcome {
    if !WINGS.contains(&wing) {
        return Err(format!("unknown wing `{wing}`: expected one of {}", WINGS.join(", ")));
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(format!("`{name}` is not a crate name: lower-case letters, digits and dashes"));
    }
    let folder = root().join("crates").join(wing).join(name);
    if folder.exists() {
        return Err(format!("crates/{wing}/{name} exists already"));
    }
    let summary = "What it is for, in one sentence.";
    let files = [
        ("Cargo.toml", MANIFEST.replace("NAME", name).replace("WING", wing).replace("SUMMARY", summary)),
        ("README.md", format!("# runtime-{name}\n\n{summary}\n\n## Limits\n")),
        ("src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n".to_owned()),
    ];
    std::fs::create_dir_all(folder.join("src")).map_err(|error| format!("crates/{wing}/{name}: {error}"))?;
    for (file, text) in files {
        std::fs::write(folder.join(file), text).map_err(|error| format!("{file}: {error}"))?;
    }
    println!(
        "crates/{wing}/{name}: add `runtime-{name}` to [workspace.dependencies], then `cargo xtask crates`"
    );
    Ok(())
}
