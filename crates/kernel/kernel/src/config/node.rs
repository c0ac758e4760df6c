//! The tree every layer is read into: values that remember which layer and place set them.

use indexmap::IndexMap;
use serde_json::{Number, Value as Json};

use super::source::Source;

/// A table of named nodes, in the order of the layer that named them first.
pub(super) type Table = IndexMap<String, Node>;

/// A value and who set it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// What a layer can say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    /// Text without a type of its own (environment, command line): read as the target type asks.
    Text(String),
    Array(Vec<Node>),
    Table(Table),
}

impl Node {
    pub(super) fn new(value: Value, source: Source) -> Self {
        Self { value, source }
    }

    pub(super) fn table(source: Source) -> Self {
        Self::new(Value::Table(Table::new()), source)
    }

    pub(super) fn from_json(json: Json, source: &Source) -> Self {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(value) => Value::Number(value),
            Json::String(value) => Value::String(value),
            Json::Array(items) => {
                Value::Array(items.into_iter().map(|item| Self::from_json(item, source)).collect())
            }
            Json::Object(entries) => Value::Table(
                entries.into_iter().map(|(key, value)| (key, Self::from_json(value, source))).collect(),
            ),
        };
        Self::new(value, source.clone())
    }

    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(value) => Json::Number(value.clone()),
            Value::String(value) | Value::Text(value) => Json::String(value.clone()),
            Value::Array(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Table(table) => {
                Json::Object(table.iter().map(|(key, node)| (key.clone(), node.to_json())).collect())
            }
        }
    }

    pub(super) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The node at a path below this one.
    pub(super) fn get(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.as_table()?.get(key))
    }

    /// A tree that holds only `node`, at `path`.
    pub(super) fn nested(path: &[String], node: Self) -> Self {
        path.iter().rev().fold(node, |inner, key| {
            let source = inner.source.clone();
            Self::new(Value::Table(Table::from([(key.clone(), inner)])), source)
        })
    }

    /// Puts `node` at `path`, replacing what is there.
    pub(super) fn insert(&mut self, path: &[String], node: Self) {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if self.as_table().is_none() {
            self.value = Value::Table(Table::new());
        }
        let Value::Table(table) = &mut self.value else { return };
        let source = node.source.clone();
        table.entry(key.clone()).or_insert_with(|| Self::table(source)).insert(rest, node);
    }

    /// Takes the node at `path` out; `false` when there is none.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let Some((key, rest)) = path.split_first() else { return false };
        let Value::Table(table) = &mut self.value else { return false };
        if rest.is_empty() {
            return table.shift_remove(key).is_some();
        }
        table.get_mut(key).is_some_and(|node| node.remove(rest))
    }

    /// Lays `over` on top: tables merge key by key; everything else, null and arrays included, replaces.
    ///
    /// Text that is a JSON object counts as a table where it meets one.
    pub(super) fn merge(&mut self, over: &Self) {
        match (self.expanded(over), over.expanded(self)) {
            (Some(mut under), over_table) => {
                let over = over_table.as_ref().unwrap_or(over);
                under.merge_tables(over);
                *self = under;
            }
            (None, Some(over)) => self.merge_tables(&over),
            (None, None) => self.merge_tables(over),
        }
    }

    fn merge_tables(&mut self, over: &Self) {
        let (Value::Table(under), Value::Table(above)) = (&mut self.value, &over.value) else {
            *self = over.clone();
            return;
        };
        for (key, node) in above {
            match under.get_mut(key) {
                Some(present) => present.merge(node),
                None => {
                    under.insert(key.clone(), node.clone());
                }
            }
        }
    }

    /// This text as the table it spells, when the other side is a table.
    fn expanded(&self, other: &Self) -> Option<Self> {
        other.as_table()?;
        self.as_json_table()
    }

    /// The table that this text spells in JSON.
    pub(super) fn as_json_table(&self) -> Option<Self> {
        let Value::Text(text) = &self.value else { return None };
        match serde_json::from_str(text) {
            Ok(Json::Object(entries)) => Some(Self::from_json(Json::Object(entries), &self.source)),
            _ => None,
        }
    }

    /// Every leaf with its path; an array and an empty table count as one leaf.
    pub(super) fn leaves(&self) -> Vec<(Vec<String>, &Self)> {
        let mut found = Vec::new();
        self.collect_leaves(&mut Vec::new(), &mut found);
        found
    }

    fn collect_leaves<'a>(&'a self, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, &'a Self)>) {
        match self.as_table() {
            Some(table) if !table.is_empty() => {
                for (key, node) in table {
                    path.push(key.clone());
                    node.collect_leaves(path, found);
                    path.pop();
                }
            }
            _ => found.push((path.clone(), self)),
        }
    }

    /// Whether two leaves say the same, however it was spelt (`81` in a file, `"81"` in the environment).
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Text(text), value) | (value, Value::Text(text)) => match value {
                Value::Number(number) => number.to_string() == text.trim(),
                Value::Bool(flag) => flag.to_string() == text.trim(),
                Value::String(other) | Value::Text(other) => other == text,
                _ => false,
            },
            _ => self.to_json() == other.to_json(),
        }
    }
}

/// A path as its keys: `"http.port"` is `["http", "port"]`, `""` is none.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

/// A path in words; a key that holds a dot is quoted.
pub(super) fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        if !text.is_empty() {
            text.push('.');
        }
        if key.contains('.') {
            text.extend(["\"", &key.replace('"', "\\\""), "\""]);
        } else {
            text.push_str(key);
        }
    }
    text
}
