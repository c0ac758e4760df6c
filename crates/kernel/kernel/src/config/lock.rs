//! Locked paths: only the super layer may set them, however the attempt is spelt.

use serde_json::Value as Json;

use super::declared::{Declared, Overlay};
use super::error::{Problem, ProblemKind};
use super::node::{Node, Value, dotted, segments};
use super::redact::covered;
use super::source::{Layer, Source};

/// Every locked path that a layer below super sets: directly, with null, or by replacing a table above it.
pub(super) fn broken(section: &Declared, overlays: &[Overlay]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for overlay in overlays.iter().filter(|overlay| !overlay.exempt) {
        if overlay.node.source.layer >= Layer::Super {
            continue;
        }
        for name in section.locked {
            let path = if *name == "*" { Vec::new() } else { segments(name) };
            attempt(section, &overlay.node, &path, &mut Vec::new(), &mut problems);
        }
    }
    problems
}

/// Follows a locked path into a layer's tree as far as the layer goes.
fn attempt(
    section: &Declared,
    node: &Node,
    rest: &[String],
    done: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) {
    if let Some(table) = node.as_json_table() {
        return attempt(section, &table, rest, done, problems);
    }
    let Some((key, below)) = rest.split_first() else {
        return each_leaf(section, node, done, problems);
    };
    let Value::Table(table) = &node.value else {
        let locked: Vec<_> = done.iter().chain(rest).cloned().collect();
        let above = dotted(&section.full(done));
        let message =
            format!("is locked, and `{above}` is replaced as a whole: only the super layer may set it");
        problems.push(problem(section, &locked, &message, &node.source));
        return;
    };
    if let Some(next) = table.get(key) {
        done.push(key.clone());
        attempt(section, next, below, done, problems);
        done.pop();
    }
}

fn each_leaf(section: &Declared, node: &Node, done: &[String], problems: &mut Vec<Problem>) {
    for (path, leaf) in node.leaves() {
        // A table that sets nothing sets nothing locked.
        if leaf.as_table().is_some() {
            continue;
        }
        let path: Vec<_> = done.iter().cloned().chain(path).collect();
        problems.push(problem(section, &path, "is locked: only the super layer may set it", &leaf.source));
    }
}

fn problem(section: &Declared, path: &[String], message: &str, source: &Source) -> Problem {
    Problem::new(ProblemKind::Locked, dotted(&section.full(path)), message).at(Some(source.clone()))
}

/// Locked leaves that nobody set by name and that still differ from their default: set through another
/// spelling, such as a serde alias.
pub(super) fn bypassed(section: &Declared, tree: &Node, dump: &Json) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, default) in section.defaults.leaves() {
        if !covered(&path, section.locked) {
            continue;
        }
        let by_name = tree.get(&path).is_some_and(|node| node.source.layer != Layer::Default);
        let now = path.iter().try_fold(dump, |json, key| json.get(key));
        if !by_name && now.is_some_and(|now| *now != default.to_json()) {
            let message =
                "is locked, and is set through another name: only the super layer may set it, by this name";
            problems.push(Problem::new(ProblemKind::Locked, dotted(&section.full(&path)), message));
        }
    }
    problems
}
