//! Reads a section's type out of the merged tree, finding every mistake, not only the first.

use serde::de::DeserializeOwned;

use super::de::Reader;
use super::error::{Problem, ProblemKind};
use super::fault::{Fault, Notes};
use super::node::{Node, Value, dotted};
use super::redact::{is_secret, without_userinfo};
use super::source::{Layer, Source};

/// Enough for any honest file; keeps the search for further mistakes bounded.
const MAX_PROBLEMS: usize = 200;

/// What reading a section found.
pub(super) struct Outcome<T> {
    pub(super) value: Option<T>,
    pub(super) problems: Vec<Problem>,
    /// Unknown keys that are tolerated: listed, not refused.
    pub(super) unused: Vec<(Vec<String>, Source)>,
}

/// How a section is to be read.
pub(super) struct Rules<'a> {
    /// The section's own path, put before every path in a report.
    pub(super) path: &'a [String],
    pub(super) secret: &'a [&'a str],
    /// Unknown keys of the file layer are tolerated.
    pub(super) lenient: bool,
}

/// Reads `tree` as a `T`. A leaf that does not fit is noted, taken back to its default, and reading goes on.
pub(super) fn read<T: DeserializeOwned>(tree: &Node, defaults: &Node, rules: &Rules<'_>) -> Outcome<T> {
    let mut tree = tree.clone();
    let mut problems: Vec<Problem> = Vec::new();
    loop {
        let notes = Notes::new(rules.lenient);
        let read = T::deserialize(Reader::root(&tree, &notes));
        let (unknown, unused) = notes.into_parts();
        let stuck = match &read {
            Ok(_) => true,
            Err(fault) => {
                problems.push(problem(fault, &tree, rules));
                problems.len() >= MAX_PROBLEMS || !restore(&mut tree, defaults, &fault.path)
            }
        };
        if stuck {
            for fault in &unknown {
                problems.push(problem(fault, &tree, rules));
            }
            return Outcome { value: read.ok(), problems, unused };
        }
    }
}

/// Takes the faulty leaf back to its default; `false` when that changes nothing.
fn restore(tree: &mut Node, defaults: &Node, path: &[String]) -> bool {
    let path = leaf_path(tree, path);
    if path.is_empty() {
        return false;
    }
    match defaults.get(&path) {
        Some(default) if tree.get(&path) != Some(default) => {
            tree.insert(&path, default.clone());
            true
        }
        _ => tree.remove(&path),
    }
}

/// The part of a path above the first array or text: arrays and texts are replaced whole.
fn leaf_path(tree: &Node, path: &[String]) -> Vec<String> {
    let mut node = tree;
    let mut leaf = Vec::new();
    for key in path {
        let Some(next) = node.as_table().and_then(|table| table.get(key)) else { break };
        leaf.push(key.clone());
        node = next;
    }
    leaf
}

fn problem(fault: &Fault, tree: &Node, rules: &Rules<'_>) -> Problem {
    let node = nearest(tree, &fault.path);
    let full: Vec<String> = rules.path.iter().chain(&fault.path).cloned().collect();
    let secret = is_secret(&fault.path, rules.secret);
    let message = match (&fault.unquoted, &node.value) {
        (Some(unquoted), _) if secret => unquoted.clone(),
        (None, _) if secret && fault.kind == ProblemKind::Invalid => "not a valid value".to_owned(),
        (_, Value::String(text) | Value::Text(text)) if !text.is_empty() => {
            fault.message.replace(text.as_str(), &without_userinfo(text))
        }
        _ => fault.message.clone(),
    };
    let source = Some(node.source.clone()).filter(|source| source.layer != Layer::Default);
    Problem::new(fault.kind, dotted(&full), message).at(source)
}

/// The node a fault is about, or the deepest one above it.
fn nearest<'a>(tree: &'a Node, path: &[String]) -> &'a Node {
    let mut node = tree;
    for key in path {
        let next = match &node.value {
            Value::Table(table) => table.get(key),
            Value::Array(items) => key.parse().ok().and_then(|index: usize| items.get(index)),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}
