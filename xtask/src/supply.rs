//! Licences, sources and bans of `deny.toml`: by `cargo deny` where it is installed, else the offline part of it here.

use serde_json::Value;

use crate::shell::{self, Outcome, cargo, has_subcommand, read, root};

/// Checks what every dependency may be.
pub(crate) fn run() -> Outcome {
    if has_subcommand("deny") {
        return shell::run(cargo().args(["deny", "check", "bans", "licenses", "sources"]));
    }
    let policy =
        std::fs::read_to_string(root().join("deny.toml")).map_err(|error| format!("deny.toml: {error}"))?;
    let allowed = strings(&policy, "allow");
    let banned = names(&policy);
    let text = read(cargo().args(["metadata", "--format-version", "1", "--all-features", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default();
    let problems: Vec<String> =
        packages.iter().flat_map(|package| judge(package, &allowed, &banned)).collect();
    if problems.is_empty() {
        println!("supply: {} packages within deny.toml (advisories need cargo-deny)", packages.len());
        return Ok(());
    }
    Err(problems.join("\n  "))
}

fn judge(package: &Value, allowed: &[String], banned: &[String]) -> Vec<String> {
    let field = |key: &str| package[key].as_str().unwrap_or_default();
    let name = format!("{} {}", field("name"), field("version"));
    let mut problems = Vec::new();
    if !permitted(field("license"), allowed) {
        problems.push(format!("{name}: licence `{}` is not in deny.toml's allow list", field("license")));
    }
    if banned.iter().any(|banned| banned == field("name")) {
        problems.push(format!("{name}: banned by deny.toml"));
    }
    let source = field("source");
    if !source.is_empty() && !source.starts_with("registry+") {
        problems.push(format!("{name}: comes from `{source}`, not from the registry"));
    }
    problems
}

/// Whether an SPDX expression can be met: some alternative of every conjunct is allowed.
fn permitted(expression: &str, allowed: &[String]) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    !flat.trim().is_empty()
        && flat
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|id| allowed.iter().any(|allowed| allowed == id.trim())))
}

/// The strings of the first `key = [...]` of the policy.
fn strings(policy: &str, key: &str) -> Vec<String> {
    let start = policy.find(&format!("\n{key} = ["));
    let body =
        start.and_then(|at| policy.get(at..)).and_then(|rest| rest.split_once('[')).map(|(_, rest)| rest);
    let body = body.and_then(|rest| rest.split_once("\n]")).map_or("", |(body, _)| body);
    body.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The crates denied outright: `{ name = "…" }` entries without wrappers.
fn names(policy: &str) -> Vec<String> {
    let entries = policy.lines().filter(|line| line.contains("name = ") && !line.contains("wrappers"));
    entries.filter_map(|line| line.split('"').nth(1)).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_expression_is_met_when_each_part_has_an_allowed_alternative() {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned(), "ISC".to_owned()];
        for (expression, ok) in [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0", false),
            ("Apache-2.0 AND ISC", true),
            ("Apache-2.0 AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND ISC", true),
            ("MIT/Apache-2.0", true),
            ("", false),
        ] {
            assert_eq!(permitted(expression, &allowed), ok, "{expression}");
        }
    }
}
