//! Every key with its value, who set it, and what that overrode.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::declared::{Declared, Scope};
use super::node::{Node, Value, dotted};
use super::redact::{covered, is_secret, shown};
use super::source::{Layer, Source};
use super::state::State;

/// What one layer says about a leaf.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// The value, secrets hidden.
    pub value: Json,
    /// The layer and the place.
    #[serde(flatten)]
    pub source: Source,
}

/// One leaf of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, each a column of the report")]
pub struct Leaf {
    /// The dotted path.
    pub path: String,
    /// The value as read, secrets hidden.
    pub value: Json,
    /// Who set it: the last of the chain.
    pub winner: Source,
    /// Everybody who set it, lowest layer first. A layer that replaced a table above it counts.
    pub chain: Vec<Setting>,
    /// Whether the value is hidden.
    pub secret: bool,
    /// Whether only the super layer may set it outside `local`.
    pub locked: bool,
    /// Whether a reload changes it in the running process.
    pub reloadable: bool,
    /// Whether anything in this build reads it.
    pub used: bool,
    /// What the process runs with (secrets hidden), where that differs because a change needs a restart.
    pub running: Option<Json>,
}

/// The whole configuration, leaf by leaf. `Display` writes a table, serde the same as data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The version in force.
    pub version: u64,
    /// Every leaf of every declared section, then what no section reads; ordered by path inside each.
    pub leaves: Vec<Leaf>,
}

impl Explanation {
    /// The leaf at a dotted path.
    pub fn leaf(&self, path: &str) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.path == path)
    }
}

/// What all sections and strays come to, with the layers above the defaults only where nobody declared them.
pub(super) fn merged(state: &State) -> Node {
    let mut tree = Node::table(Source::DEFAULT);
    for entry in state.entries.values() {
        tree.merge(&Node::nested(&entry.declared.path, entry.tree.clone()));
    }
    for stray in state.loaded.strays(&state.declared()) {
        tree.merge(&Node::nested(&stray.path, stray.node));
    }
    tree
}

pub(super) fn explain(state: &State) -> Explanation {
    let paths = state.paths();
    let scope = Scope { loaded: &state.loaded, others: &paths, local: state.local() };
    let mut leaves = Vec::new();
    for entry in state.entries.values() {
        let mut section = section(&entry.declared, &entry.tree, &scope);
        section.sort_by(|a, b| a.path.cmp(&b.path));
        leaves.append(&mut section);
    }
    leaves.extend(strays(state));
    Explanation { version: state.version, leaves }
}

fn section(declared: &Declared, running: &Node, scope: &Scope<'_>) -> Vec<Leaf> {
    let evaluated = declared.evaluate(scope);
    let mut layers = vec![&declared.defaults];
    layers.extend(evaluated.overlays.iter().map(|overlay| &overlay.node));
    // Secret defaults are not merged, and are shown all the same.
    let mut tree = declared.defaults.clone();
    layers.iter().skip(1).for_each(|layer| tree.merge(layer));
    let mut leaves = Vec::new();
    for (path, node) in tree.leaves() {
        let secret = is_secret(&path, declared.secret);
        let chain: Vec<_> = layers.iter().filter_map(|layer| says(layer, &path, secret)).collect();
        let typed = path.iter().try_fold(&evaluated.dump, |json, key| json.get(key));
        let value = typed.cloned().unwrap_or_else(|| node.to_json());
        let now = running.get(&path);
        let stale = now.filter(|now| !now.says_the_same(node)).map(|now| shown(now.to_json(), secret));
        let used = !evaluated.unused.iter().any(|(unused, _)| path.starts_with(unused));
        leaves.push(Leaf {
            path: dotted(&declared.full(&path)),
            value: shown(value, secret && !node.to_json().is_null()),
            winner: node.source.clone(),
            chain,
            secret,
            locked: covered(&path, declared.locked),
            reloadable: covered(&path, declared.reloadable),
            used,
            running: stale,
        });
    }
    leaves
}

/// What a layer says about a path: the value there, or whatever it puts in place of a table above it.
fn says(layer: &Node, path: &[String], secret: bool) -> Option<Setting> {
    if let Some(table) = layer.as_json_table() {
        return says(&table, path, secret);
    }
    match (&layer.value, path.split_first()) {
        (Value::Table(table), Some((key, below))) => says(table.get(key)?, below, secret),
        // A table here only holds other leaves.
        (Value::Table(table), None) if !table.is_empty() => None,
        _ => Some(Setting { value: shown(layer.to_json(), secret), source: layer.source.clone() }),
    }
}

fn strays(state: &State) -> Vec<Leaf> {
    let mut found: Vec<Leaf> = Vec::new();
    for stray in state.loaded.strays(&state.declared()) {
        for (below, node) in stray.node.leaves() {
            let path: Vec<_> = stray.path.iter().cloned().chain(below).collect();
            let secret = is_secret(&path, &[]);
            let value = shown(node.to_json(), secret);
            let path = dotted(&path);
            let setting = Setting { value: value.clone(), source: node.source.clone() };
            if let Some(leaf) = found.iter_mut().find(|leaf| leaf.path == path) {
                leaf.value = value;
                leaf.winner = node.source.clone();
                leaf.chain.push(setting);
                continue;
            }
            found.push(Leaf {
                path,
                value,
                winner: node.source.clone(),
                chain: vec![setting],
                secret,
                locked: false,
                reloadable: false,
                used: false,
                running: None,
            });
        }
    }
    found
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key_width = self.leaves.iter().map(|leaf| leaf.path.chars().count()).max().unwrap_or(0);
        let values = self.leaves.iter().flat_map(|leaf| leaf.chain.iter().map(|setting| &setting.value));
        let all = values.chain(self.leaves.iter().map(|leaf| &leaf.value));
        let value_width = all.map(|value| word(value).chars().count()).max().unwrap_or(0).min(48);
        for leaf in &self.leaves {
            let marks: String = [
                (leaf.locked && leaf.winner.layer != Layer::Super, " [locked]"),
                (!leaf.used, " [not used by this build]"),
                (leaf.running.is_some(), " [needs restart]"),
            ]
            .into_iter()
            .filter_map(|(set, mark)| set.then_some(mark))
            .collect();
            let value = word(&leaf.value);
            writeln!(f, "{:key_width$}  {value:value_width$}  {}{marks}", leaf.path, leaf.winner)?;
            for setting in leaf.chain.iter().rev().skip(1) {
                writeln!(
                    f,
                    "{:key_width$}  {:value_width$}  over {}",
                    "",
                    word(&setting.value),
                    setting.source
                )?;
            }
        }
        Ok(())
    }
}

fn word(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
