//! Environment variables: which are ours, and which path each one means.

use std::path::PathBuf;
use std::sync::Arc;

use super::declared::Declared;
use super::error::{Problem, ProblemKind};
use super::format;
use super::node::{Node, Value, dotted};
use super::source::{Layer, Place, Source};

/// A variable that may set something. Which path it means depends on the sections declared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Var {
    pub(super) name: Arc<str>,
    pub(super) layer: Layer,
    /// The name's parts, in lower case.
    pub(super) keys: Vec<String>,
    pub(super) text: String,
    /// What the file holds that the variable names, when its own name ends in `_FILE`.
    pub(super) file: Option<FromFile>,
    /// Comes from the Athyper table: may set locked paths as it may there, and may find no reader.
    pub(super) compat: bool,
}

/// The file a `_FILE` variable names.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FromFile {
    pub(super) path: Arc<PathBuf>,
    pub(super) text: Result<String, String>,
}

impl Var {
    pub(super) fn new(name: &str, layer: Layer, keys: Vec<String>, text: &str) -> Self {
        let file = name.ends_with("_FILE").then(|| {
            let path = PathBuf::from(text.trim());
            let text = format::read_text(&path).map_err(|problem| problem.message);
            FromFile {
                path: Arc::new(path),
                text: text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
            }
        });
        Self { name: name.into(), layer, keys, text: text.to_owned(), file, compat: false }
    }

    /// Reads `PREFIX__A__B` and `PREFIX_SUPER__A__B`; any other name is not ours.
    pub(super) fn parse(prefix: &str, name: &str, text: &str) -> Option<Self> {
        let rest = name.strip_prefix(prefix)?;
        let (layer, rest) = match rest.strip_prefix("_SUPER__") {
            Some(rest) => (Layer::Super, rest),
            None => (Layer::Env, rest.strip_prefix("__")?),
        };
        Some(Self::new(name, layer, rest.split("__").map(str::to_lowercase).collect(), text))
    }

    pub(super) fn source(&self) -> Source {
        Source::new(self.layer, Place::Variable(Arc::clone(&self.name)))
    }

    /// What this variable sets in a section, when it means that section; `others` are the paths of all sections.
    pub(super) fn within(&self, section: &Declared, others: &[Vec<String>]) -> Option<Result<Node, Problem>> {
        let plain = self.path_in(&self.keys, section, others);
        if self.compat && !plain.as_ref().is_some_and(|path| section.knows(path)) {
            return None;
        }
        let Some(file) = &self.file else { return plain.map(|path| Ok(self.node(&path))) };
        if let Some(path) = plain.as_ref().filter(|path| section.knows(path)) {
            return Some(Ok(self.node(path)));
        }
        let stripped = self.without_file_suffix();
        let Some(path) = self.path_in(&stripped, section, others).filter(|path| section.knows(path)) else {
            return plain.map(|path| Ok(self.node(&path)));
        };
        let place = Place::VariableFile { variable: Arc::clone(&self.name), path: Arc::clone(&file.path) };
        let source = Source::new(self.layer, place);
        Some(match &file.text {
            Ok(text) => Ok(Node::nested(&path, Node::new(Value::Text(text.clone()), source))),
            Err(message) => {
                let full: Vec<_> = section.path.iter().chain(&path).cloned().collect();
                Err(Problem::new(ProblemKind::File, dotted(&full), message.clone()).at(Some(self.source())))
            }
        })
    }

    fn node(&self, path: &[String]) -> Node {
        Node::nested(path, Node::new(Value::Text(self.text.clone()), self.source()))
    }

    fn without_file_suffix(&self) -> Vec<String> {
        let mut keys = self.keys.clone();
        if let Some(last) = keys.last_mut() {
            last.truncate(last.len().saturating_sub("_file".len()));
        }
        keys
    }

    /// The path relative to the section.
    fn path_in(&self, keys: &[String], section: &Declared, others: &[Vec<String>]) -> Option<Vec<String>> {
        if let Some(rest) = keys.strip_prefix(section.path.as_slice()).filter(|rest| section.reads(rest)) {
            return Some(rest.to_vec());
        }
        if self.layer != Layer::Super {
            return None;
        }
        // `DB_URL`: one underscore is enough where the joined name meets a known path.
        let joined = keys.join("_");
        let stem = section.path.join("_");
        let rest =
            if stem.is_empty() { joined.as_str() } else { joined.strip_prefix(&stem)?.strip_prefix('_')? };
        if let Some(path) = section.known.iter().find(|path| path.join("_") == rest) {
            return Some(path.clone());
        }
        let owner = others
            .iter()
            .filter(|path| joined.strip_prefix(&path.join("_")).is_some_and(|rest| rest.starts_with('_')))
            .max_by_key(|path| path.len());
        (!stem.is_empty() && owner == Some(&section.path)).then(|| vec![rest.to_owned()])
    }
}
