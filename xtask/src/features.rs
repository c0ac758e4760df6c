//! `cargo xtask features`: each crate alone, so that no feature lives off another crate's.

use crate::metadata::{Package, Workspace};
use crate::shell::{self, Outcome, cargo};

/// Checks each crate alone with `-p`: without default features, with them, and with each feature by itself.
/// A warning fails it: lints are otherwise run with all features on.
pub(crate) fn run() -> Outcome {
    let workspace = Workspace::load()?;
    let mut count = 0;
    for package in workspace.packages.iter().filter(|package| package.wing != "xtask") {
        for flags in combinations(package) {
            let flags = flags.iter().map(String::as_str);
            shell::run_silent(
                cargo().args(["check", "--quiet", "--locked", "-p", &package.name]).args(flags),
            )?;
            count += 1;
        }
    }
    println!("features: {count} combinations, each crate alone");
    Ok(())
}

/// The flags of every combination; ones that come to the same are left out.
fn combinations(package: &Package) -> Vec<Vec<String>> {
    let none = || vec!["--no-default-features".to_owned()];
    let mut flags = vec![none()];
    if !package.defaults.is_empty() {
        flags.push(Vec::new());
    }
    let alone = package.features.iter().filter(|feature| package.defaults != [(*feature).clone()]);
    flags.extend(alone.map(|feature| [none(), vec![format!("--features={feature}")]].concat()));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_checked_alone_and_nothing_twice() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let package = Package {
            features: named(&["module", "sqlite"]),
            defaults: named(&["module"]),
            ..Package::default()
        };
        assert_eq!(
            combinations(&package),
            [
                named(&["--no-default-features"]),
                vec![],
                named(&["--no-default-features", "--features=sqlite"])
            ]
        );
    }
}
