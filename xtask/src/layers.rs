//! `cargo xtask layers`: floors and absences, from the resolved dependency graph.

use std::collections::BTreeSet;

use crate::metadata::{Package, WINGS, Workspace};
use crate::shell::Outcome;

/// What the kernel may not contain, at any depth.
const BANNED_FROM_KERNEL: [&str; 8] =
    ["axum", "sqlx", "sqlx-core", "redis", "deadpool", "reqwest", "opentelemetry", "hyper"];

/// Dev-only crates: nothing may depend on them but tests.
const DEV_ONLY: [&str; 1] = ["runtime-testkit"];

/// Checks every rule and names every breach.
pub(crate) fn run() -> Outcome {
    let workspace = Workspace::load()?;
    let mut breaches = floors(&workspace.packages);
    breaches.extend(kernel(&workspace));
    breaches.extend(umbrella(&workspace.packages));
    breaches.extend(msrv(&workspace));
    if breaches.is_empty() {
        println!(
            "layers: {} crates, every dependency points to its own or a lower floor",
            workspace.packages.len()
        );
        return Ok(());
    }
    Err(format!("layers:\n  {}", breaches.join("\n  ")))
}

fn floors(packages: &[Package]) -> Vec<String> {
    let mut breaches = Vec::new();
    let floor = |wing: &str| WINGS.iter().position(|w| *w == wing);
    for package in packages {
        let Some(own) = floor(&package.wing) else {
            if !matches!(package.wing.as_str(), "tools" | "xtask") {
                breaches.push(format!(
                    "{}: unknown wing `{}` in [package.metadata.runtime]",
                    package.name, package.wing
                ));
            }
            continue;
        };
        for used in packages.iter().filter(|other| package.uses.contains(&other.name)) {
            if DEV_ONLY.contains(&used.name.as_str()) {
                breaches.push(format!("{} depends on {}, which is for tests only", package.name, used.name));
            } else if floor(&used.wing).is_none_or(|theirs| theirs > own) {
                breaches.push(format!(
                    "{} ({}) depends on {} ({}), a higher floor",
                    package.name, package.wing, used.name, used.wing
                ));
            }
        }
    }
    breaches.extend(cycle(packages).map(|path| format!("a cycle: {}", path.join(" -> "))));
    breaches
}

/// A dependency cycle between crates of the workspace, as a path that ends where it began.
fn cycle(packages: &[Package]) -> Option<Vec<String>> {
    fn visit(
        name: &str,
        packages: &[Package],
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| seen == name) {
            let mut found = path.get(start..).unwrap_or_default().to_vec();
            found.push(name.to_owned());
            return Some(found);
        }
        if done.contains(name) {
            return None;
        }
        let package = packages.iter().find(|p| p.name == name)?;
        path.push(name.to_owned());
        let found = package.uses.iter().find_map(|used| visit(used, packages, path, done));
        path.pop();
        done.insert(name.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    packages.iter().find_map(|package| visit(&package.name, packages, &mut Vec::new(), &mut done))
}

fn kernel(workspace: &Workspace) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec!["runtime-kernel".to_owned()];
    while let Some(name) = open.pop() {
        if seen.insert(name.clone()) {
            open.extend(workspace.resolved.get(&name).into_iter().flatten().cloned());
        }
    }
    let banned = BANNED_FROM_KERNEL.into_iter().filter(|name| seen.contains(*name));
    banned.map(|name| format!("runtime-kernel pulls in {name}")).collect()
}

/// The umbrella holds every crate of every wing below the faces.
fn umbrella(packages: &[Package]) -> Vec<String> {
    let Some(umbrella) = packages.iter().find(|package| package.name == "runtime") else { return Vec::new() };
    let inside = |package: &&Package| {
        WINGS.contains(&package.wing.as_str())
            && package.wing != "faces"
            && !umbrella.uses.contains(&package.name)
    };
    let left_out = packages.iter().filter(inside);
    left_out.map(|package| format!("runtime does not re-export {}", package.name)).collect()
}

fn msrv(workspace: &Workspace) -> Vec<String> {
    let running =
        crate::shell::read(std::process::Command::new("rustc").arg("--version")).unwrap_or_default();
    let running = running.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let differs = |version: &&String| running != **version && !running.starts_with(&format!("{version}."));
    let wrong = workspace.rust_version.iter().filter(|(_, version)| differs(version));
    wrong
        .map(|(name, version)| format!("{name} declares rust-version {version}, checked with {running}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, wing: &str, uses: &[&str]) -> Package {
        let uses = uses.iter().map(|name| (*name).to_owned()).collect();
        Package { name: name.to_owned(), wing: wing.to_owned(), uses, ..Package::default() }
    }

    #[test]
    fn a_crate_the_umbrella_leaves_out_is_found() {
        let all = [
            package("runtime", "faces", &["k"]),
            package("k", "kernel", &[]),
            package("j", "work", &[]),
            package("t", "tools", &[]),
        ];
        assert_eq!(umbrella(&all), ["runtime does not re-export j"]);
    }

    #[test]
    fn an_upward_edge_a_cycle_and_a_test_crate_in_the_product_are_found() {
        let fine = [
            package("k", "kernel", &[]),
            package("h", "foundation", &["k"]),
            package("j", "work", &["h", "k"]),
        ];
        assert_eq!(floors(&fine), Vec::<String>::new());
        let upward = [package("k", "kernel", &["h"]), package("h", "foundation", &[])];
        assert_eq!(floors(&upward), ["k (kernel) depends on h (foundation), a higher floor"]);
        let round = [package("a", "foundation", &["b"]), package("b", "foundation", &["a"])];
        assert_eq!(floors(&round), ["a cycle: a -> b -> a"]);
        let tests =
            [package("a", "foundation", &["runtime-testkit"]), package("runtime-testkit", "tools", &[])];
        assert_eq!(floors(&tests), ["a depends on runtime-testkit, which is for tests only"]);
        assert_eq!(
            floors(&[package("x", "attic", &[])]),
            ["x: unknown wing `attic` in [package.metadata.runtime]"]
        );
    }
}
