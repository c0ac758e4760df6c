//! `cargo xtask crates`: the crate map and the feature tables, written from the manifests.

use std::fmt::Write as _;

use crate::metadata::{Package, Workspace};
use crate::shell::{Outcome, root};

const BEGIN: &str = "<!-- crates:begin -->";
const END: &str = "<!-- crates:end -->";

/// Writes the map, or fails when what is written is stale.
pub(crate) fn run(check: bool) -> Outcome {
    let workspace = Workspace::load()?;
    let packages: Vec<&Package> =
        workspace.packages.iter().filter(|package| package.wing != "xtask").collect();
    let readme = read("README.md")?;
    let files = [
        ("docs/src/crates.md", format!("# The crates\n\n{}", map(&packages, "../../"))),
        ("docs/src/features.md", format!("# Features\n\n{}", tables(&packages)?)),
        ("README.md", replace(&readme, &map(&packages, ""))?),
    ];
    for (path, text) in files {
        let current = read(path).unwrap_or_default();
        if current == text {
            continue;
        }
        if check {
            return Err(format!("{path} is stale: run `cargo xtask crates` and commit it"));
        }
        std::fs::write(root().join(path), text).map_err(|error| format!("{path}: {error}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

fn read(path: &str) -> Outcome<String> {
    std::fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

fn map(packages: &[&Package], prefix: &str) -> String {
    let mut text = String::from("| wing | crate | what it is for |\n|---|---|---|\n");
    for package in packages {
        let _ = writeln!(
            text,
            "| {} | [`{}`]({prefix}{}) | {} |",
            package.wing, package.name, package.folder, package.summary
        );
    }
    text
}

fn tables(packages: &[&Package]) -> Outcome<String> {
    let mut text = String::new();
    for package in packages.iter().filter(|package| !package.features.is_empty()) {
        let manifest = read(&format!("{}/Cargo.toml", package.folder))?;
        let _ = writeln!(text, "## {}\n\n| feature | default | what it adds |\n|---|---|---|", package.name);
        for feature in &package.features {
            let default = if package.defaults.contains(feature) { "yes" } else { "" };
            let what = comment(&manifest, feature)
                .ok_or_else(|| format!("{}: feature `{feature}` has no `##` comment", package.name))?;
            let _ = writeln!(text, "| `{feature}` | {default} | {what} |");
        }
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// The `##` lines above a feature.
fn comment(manifest: &str, feature: &str) -> Option<String> {
    let mut lines = Vec::new();
    for line in manifest.lines() {
        if let Some(words) = line.strip_prefix("## ") {
            lines.push(words.trim());
        } else if line.strip_prefix(feature).is_some_and(|rest| rest.trim_start().starts_with('='))
            && !lines.is_empty()
        {
            return Some(lines.join(" "));
        } else {
            lines.clear();
        }
    }
    None
}

fn replace(readme: &str, map: &str) -> Outcome<String> {
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(|| format!("README.md has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("README.md has no {END}"))?;
    Ok(format!("{before}{BEGIN}\n{map}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_above_a_feature_is_its_description() {
        let manifest =
            "## Wires it\n## into an app.\nmodule = []\n\nbare = []\n## Postgres.\npostgres = []\n";
        assert_eq!(comment(manifest, "module").as_deref(), Some("Wires it into an app."));
        assert_eq!(comment(manifest, "bare"), None);
        assert_eq!(comment(manifest, "postgres").as_deref(), Some("Postgres."));
    }

    #[test]
    fn only_the_marked_block_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replace(&text, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(replace("no block", "x").is_err());
    }
}
