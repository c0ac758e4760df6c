//! `cargo xtask docs`: every public item documented, every link resolved; the book too where mdBook is installed.

use std::path::{Path, PathBuf};

use crate::shell::{self, Outcome, cargo, on_path, root};

/// Builds the documentation with warnings denied.
pub(crate) fn run() -> Outcome {
    let broken = broken(&root())?;
    if !broken.is_empty() {
        return Err(format!("links that lead nowhere:\n  {}", broken.join("\n  ")));
    }
    let flags = "-D warnings -D missing_docs";
    let args = ["doc", "--workspace", "--no-deps", "--all-features", "--locked", "--exclude", "xtask"];
    shell::run(cargo().args(args).env("RUSTDOCFLAGS", flags))?;
    if on_path("mdbook") {
        shell::run(std::process::Command::new("mdbook").args(["build", "docs"]).current_dir(root()))?;
    }
    Ok(())
}

/// Links and includes of every page under version control that name a file which is not there.
fn broken(root: &Path) -> Outcome<Vec<String>> {
    let listed = shell::read(std::process::Command::new("git").args(["ls-files", "*.md"]).current_dir(root))?;
    let mut broken = Vec::new();
    for page in listed.lines().map(PathBuf::from) {
        let text = std::fs::read_to_string(root.join(&page))
            .map_err(|error| format!("{}: {error}", page.display()))?;
        let folder = root.join(&page).parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let missing = targets(&text).into_iter().filter(|target| !folder.join(target).exists());
        broken.extend(missing.map(|target| format!("{}: {target}", page.display())));
    }
    Ok(broken)
}

/// The files a page links to or includes; addresses and anchors aside.
fn targets(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let includes = text.split("{{#include ").skip(1).filter_map(|rest| rest.split_once("}}"));
    links
        .chain(includes.map(|(target, _)| target))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':') && !target.contains(char::is_whitespace))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_includes_to_files_are_seen() {
        let page = "[a](b.md) [c](https://example.org) [d](#e) [f](g/h.md#i)\n{{#include ../j.md}}";
        assert_eq!(targets(page), ["b.md", "g/h.md", "../j.md"]);
    }
}
