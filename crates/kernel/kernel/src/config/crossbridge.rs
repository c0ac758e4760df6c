//! The section `runtime` of CrossBridge's files, read as our sections.

use std::time::Duration;

use serde_json::{Number, json};

use super::error::{Problem, ProblemKind};
use super::node::{Node, Table, Value, segments};
use super::source::Source;
use super::suggest::hint;

/// Where it is in a file.
const SECTION: &str = "runtime";
/// The parts of it that are read; one of them is enough to know the file by. Other parts are listed as unused.
const PARTS: [&str; 3] = ["rate_limiting", "retry", "health_checks"];

/// What CrossBridge allows when a file does not say: operation, capacity, per minute.
const OPERATIONS: [(&str, u32); 5] =
    [("search", 30), ("transform", 10), ("embed", 60), ("ai_generate", 20), ("health_check", 100)];
/// What an operation has that is not among them.
const OTHERWISE: u32 = 30;

/// How a value changes on the way.
#[derive(Clone, Copy)]
enum As {
    Same,
    /// A number of seconds.
    Seconds,
    /// Whether there is jitter.
    Jitter,
}

const POLICY: &[(&str, &str, As)] = &[
    ("max_attempts", "max_attempts", As::Same),
    ("base_delay", "base_delay", As::Seconds),
    ("max_delay", "max_delay", As::Seconds),
    ("exponential_base", "factor", As::Same),
    ("jitter", "jitter", As::Jitter),
];
const RATE: &[(&str, &str, As)] =
    &[("capacity", "capacity", As::Same), ("window_seconds", "window", As::Seconds)];
const CHECK: &[(&str, &str, As)] = &[
    ("enabled", "enabled", As::Same),
    ("interval", "interval", As::Seconds),
    ("timeout", "timeout", As::Seconds),
];

/// Whether a file has CrossBridge's section: a table `runtime` with one of its parts.
pub(super) fn found(tree: &Node) -> bool {
    let section = tree.get(&segments(SECTION)).and_then(Node::as_table);
    section.is_some_and(|section| PARTS.iter().any(|part| section.contains_key(*part)))
}

/// A file's tree with our paths for what the section says, `${NAME}` and `${NAME:-otherwise}` read from the environment.
/// What the file says in our own words wins.
pub(super) fn translate(mut tree: Node, env: &[(String, String)]) -> (Node, Vec<Problem>) {
    let mut reader = Reader { out: Node::table(tree.source.clone()), problems: Vec::new() };
    for part in PARTS {
        let path = segments(&format!("{SECTION}.{part}"));
        let Some(mut node) = tree.get(&path).cloned() else { continue };
        expand(&mut node, env);
        tree.remove(&path);
        match (part, node.value) {
            // As when it is not there.
            (_, Value::Null) => {}
            ("rate_limiting", Value::Table(table)) => reader.rate_limiting(&table, &node.source),
            ("retry", Value::Table(table)) => reader.retry(&table),
            (_, Value::Table(table)) => reader.health(&table),
            _ => reader.wrong(part, "must be a table", &node.source),
        }
    }
    // What is nearly one of the parts is not another block of CrossBridge's.
    for (key, node) in tree.get(&segments(SECTION)).and_then(Node::as_table).into_iter().flatten() {
        if !hint(key, PARTS).is_empty() {
            reader.unknown("", key, &node.source, PARTS);
        }
    }
    if tree.get(&segments(SECTION)).and_then(Node::as_table).is_some_and(Table::is_empty) {
        tree.remove(&segments(SECTION));
    }
    let mut out = reader.out;
    out.merge(&tree);
    (out, reader.problems)
}

struct Reader {
    out: Node,
    problems: Vec<Problem>,
}

impl Reader {
    fn wrong(&mut self, path: &str, message: &str, source: &Source) {
        let problem = Problem::new(ProblemKind::Invalid, format!("{SECTION}.{path}"), message);
        self.problems.push(problem.at(Some(source.clone())));
    }

    fn unknown<'a>(
        &mut self,
        path: &str,
        key: &str,
        source: &Source,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let message = format!("no key `{key}`{}", hint(key, known));
        let at: Vec<_> = [SECTION, path, key].into_iter().filter(|part| !part.is_empty()).collect();
        let problem = Problem::new(ProblemKind::UnknownKey, at.join("."), message);
        self.problems.push(problem.at(Some(source.clone())));
    }

    fn put(&mut self, path: &str, kind: As, node: &Node) {
        self.out.insert(&segments(path), convert(kind, node));
    }

    /// A table whose every key has a place of ours below `to`.
    fn table(&mut self, from: &str, node: &Node, to: &[&str], keys: &[(&str, &str, As)], also: &[&str]) {
        let Some(table) = node.as_table() else {
            return self.wrong(from, "must be a table", &node.source);
        };
        for (key, node) in table {
            match keys.iter().find(|(known, ..)| known == key) {
                Some((_, ours, kind)) => {
                    let path: Vec<_> = to.iter().copied().chain([*ours]).collect();
                    self.out.insert(&owned(&path), convert(*kind, node));
                }
                None if also.contains(&key.as_str()) => {}
                None => {
                    let known = keys.iter().map(|(known, ..)| *known).chain(also.iter().copied());
                    self.unknown(from, key, &node.source, known);
                }
            }
        }
    }

    fn rate_limiting(&mut self, table: &Table, source: &Source) {
        for (name, _) in OPERATIONS {
            self.out.insert(&owned(&["ratelimit", "operations", name]), assumed(name, source));
        }
        for (key, node) in table {
            match (key.as_str(), node.as_table()) {
                ("enabled", _) => self.put("ratelimit.enabled", As::Same, node),
                ("cleanup_threshold", _) => self.put("ratelimit.max_keys", As::Same, node),
                ("defaults", Some(operations)) => {
                    self.rates("rate_limiting.defaults", operations, &["ratelimit", "operations"]);
                }
                ("overrides", Some(subjects)) => {
                    for (subject, operations) in subjects {
                        let from = format!("rate_limiting.overrides.{subject}");
                        match operations.as_table() {
                            Some(table) => self.rates(&from, table, &["ratelimit", "overrides", subject]),
                            None => self.wrong(&from, "must be a table of operations", &operations.source),
                        }
                    }
                }
                ("defaults" | "overrides", None) if matches!(node.value, Value::Null) => {}
                ("defaults" | "overrides", None) => {
                    self.wrong(&format!("rate_limiting.{key}"), "must be a table", &node.source);
                }
                _ => {
                    let known = ["enabled", "defaults", "cleanup_threshold", "overrides"];
                    self.unknown("rate_limiting", key, &node.source, known);
                }
            }
        }
    }

    /// The rates of operations; what one leaves out is what CrossBridge assumes.
    fn rates(&mut self, from: &str, operations: &Table, to: &[&str]) {
        for (name, node) in operations {
            let path: Vec<_> = to.iter().copied().chain([name.as_str()]).collect();
            self.out.insert(&owned(&path), assumed(name, &node.source));
            self.table(&format!("{from}.{name}"), node, &path, RATE, &[]);
        }
    }

    fn retry(&mut self, table: &Table) {
        for (key, node) in table {
            match (key.as_str(), key.strip_suffix("_policy")) {
                ("enabled", _) => self.put("resilience.retries", As::Same, node),
                ("retryable_codes", _) => self.put("client.retry_statuses", As::Same, node),
                ("network_timeout", _) => self.put("client.timeout", As::Seconds, node),
                (_, Some(name)) => {
                    let to = ["resilience", "retry", name];
                    self.table(&format!("retry.{key}"), node, &to, POLICY, &[]);
                }
                _ => {
                    let known =
                        ["enabled", "retryable_codes", "network_timeout", "default_policy", "quick_policy"];
                    self.unknown("retry", key, &node.source, known);
                }
            }
        }
    }

    fn health(&mut self, table: &Table) {
        for (key, node) in table {
            match (key.as_str(), node.as_table()) {
                ("enabled", _) => self.put("health.enabled", As::Same, node),
                ("interval", _) => self.put("health.interval", As::Seconds, node),
                ("timeout", _) => self.put("health.timeout", As::Seconds, node),
                ("failure_threshold", _) => self.put("health.failure_threshold", As::Same, node),
                ("providers", Some(providers)) => {
                    for (name, node) in providers {
                        let from = format!("health_checks.providers.{name}");
                        self.table(
                            &from,
                            node,
                            &["health", "checks", name],
                            CHECK,
                            &["check_type", "callable"],
                        );
                        self.check_type(&from, name, node);
                    }
                }
                ("degraded_mode", Some(mode)) => self.degraded_mode(mode),
                ("providers" | "degraded_mode", None) if matches!(node.value, Value::Null) => {}
                ("providers" | "degraded_mode", None) => {
                    self.wrong(&format!("health_checks.{key}"), "must be a table", &node.source);
                }
                _ => {
                    let known =
                        ["enabled", "interval", "timeout", "failure_threshold", "providers", "degraded_mode"];
                    self.unknown("health_checks", key, &node.source, known);
                }
            }
        }
    }

    /// AI and embedding providers can be asked in several ways; everything else is asked by the check of its name.
    fn check_type(&mut self, from: &str, name: &str, node: &Node) {
        let said = |key: &str| node.as_table().and_then(|table| table.get(key));
        if let Some(function) = said("callable") {
            let message =
                format!("is a function of Python: register a check named `{name}`, and leave this out");
            self.wrong(&format!("{from}.callable"), &message, &function.source);
        }
        let Some(kind) = said("check_type") else { return };
        let (known, to) = match name {
            "ai_provider" => (&["embed", "generate", "ping"][..], Some("providers.chat_check")),
            "embedding_provider" => (&["embed", "ping"][..], Some("providers.embedding_check")),
            _ => (&["ping", "health_check", "get_collection", "callable"][..], None),
        };
        match (&kind.value, to) {
            (Value::String(word) | Value::Text(word), to) if known.contains(&word.as_str()) => {
                if let Some(to) = to {
                    self.put(to, As::Same, kind);
                }
            }
            _ => {
                let message = format!("must be one of {}", known.join(", "));
                self.wrong(&format!("{from}.check_type"), &message, &kind.source);
            }
        }
    }

    fn degraded_mode(&mut self, table: &Table) {
        for (key, node) in table {
            match key.as_str() {
                "continue_on_degraded" => self.put("health.degraded_passes", As::Same, node),
                "disable_features" => self.put("health.disable_when_degraded", As::Same, node),
                "alerts" => {
                    let keys = [("slack_webhook", "slack_webhook", As::Same)];
                    let from = "health_checks.degraded_mode.alerts";
                    self.table(from, node, &["health", "alerts"], &keys, &["email"]);
                    if let Some(email) = node.as_table().and_then(|table| table.get("email")) {
                        let message = "is not supported: no mail is sent; give a webhook";
                        self.wrong(&format!("{from}.email"), message, &email.source);
                    }
                }
                _ => {
                    let known = ["continue_on_degraded", "disable_features", "alerts"];
                    self.unknown("health_checks.degraded_mode", key, &node.source, known);
                }
            }
        }
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|key| (*key).to_owned()).collect()
}

/// What CrossBridge allows an operation it is not told about.
fn assumed(operation: &str, source: &Source) -> Node {
    let known = OPERATIONS.iter().find(|(name, _)| *name == operation);
    let capacity = known.map_or(OTHERWISE, |(_, capacity)| *capacity);
    Node::from_json(json!({ "capacity": capacity, "window": "1m" }), source)
}

/// Puts variables in. A variable that is not set and has no word for that is left as it is, which its reader refuses.
fn expand(node: &mut Node, env: &[(String, String)]) {
    match &mut node.value {
        Value::Table(table) => table.values_mut().for_each(|node| expand(node, env)),
        Value::Array(items) => items.iter_mut().for_each(|node| expand(node, env)),
        Value::String(text) => {
            let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else { return };
            let (name, otherwise) = match inner.split_once(":-") {
                Some((name, otherwise)) => (name, Some(otherwise)),
                None => (inner, None),
            };
            let set = env.iter().rfind(|(known, value)| known == name && !value.is_empty());
            if let Some(value) = set.map(|(_, value)| value.as_str()).or(otherwise) {
                node.value = Value::Text(value.to_owned());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}

fn convert(kind: As, node: &Node) -> Node {
    let value = match (kind, &node.value) {
        (As::Seconds, Value::Number(number)) => seconds(number),
        (As::Seconds, Value::Text(text)) => text.trim().parse().ok().and_then(|number| seconds(&number)),
        (As::Jitter, Value::Bool(jitter)) => Some(spread(*jitter)),
        (As::Jitter, Value::Text(text)) => text.trim().parse().ok().map(spread),
        _ => None,
    };
    // What cannot be converted is refused by the section that reads it, with its place.
    Node::new(value.unwrap_or_else(|| node.value.clone()), node.source.clone())
}

fn spread(jitter: bool) -> Value {
    Value::String(if jitter { "full" } else { "none" }.to_owned())
}

fn seconds(number: &Number) -> Option<Value> {
    let duration = Duration::try_from_secs_f64(number.as_f64()?).ok()?;
    Some(Value::String(humantime::format_duration(duration).to_string()))
}
