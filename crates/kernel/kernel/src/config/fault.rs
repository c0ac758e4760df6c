//! What is noticed while a tree is read, and where.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::error::ProblemKind;
use super::node::Node;
use super::source::{Layer, Source};
use super::suggest::hint;

/// Why a node does not fit the type, and where.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: ProblemKind,
    pub(super) message: String,
    /// The message without the offending value, for secrets.
    pub(super) unquoted: Option<String>,
    pub(super) path: Vec<String>,
    placed: bool,
}

impl Fault {
    pub(super) fn new(message: String) -> Self {
        Self { kind: ProblemKind::Invalid, message, unquoted: None, path: Vec::new(), placed: false }
    }

    pub(super) fn at(mut self, at: &At<'_>) -> Self {
        if !self.placed {
            self.path = at.path();
            self.placed = true;
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let mut fault = Self::new(format!("invalid type: {unexpected}, expected {expected}"));
        fault.unquoted = Some(format!("invalid type, expected {expected}"));
        fault
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let mut fault = Self::new(format!("invalid value: {unexpected}, expected {expected}"));
        fault.unquoted = Some(format!("invalid value, expected {expected}"));
        fault
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let choices = expected.join(", ");
        Self::new(format!(
            "unknown value `{variant}`{}, expected one of {choices}",
            hint(variant, expected.iter().copied())
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut fault = Self::new(unknown_key(field, expected));
        fault.kind = ProblemKind::UnknownKey;
        fault
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    format!("unknown key `{key}`{}", hint(key, known.iter().copied()))
}

/// What was noticed on the way without stopping.
pub(super) struct Notes {
    lenient: bool,
    unknown: RefCell<Vec<Fault>>,
    unused: RefCell<Vec<(Vec<String>, Source)>>,
}

impl Notes {
    pub(super) fn new(lenient: bool) -> Self {
        Self { lenient, unknown: RefCell::default(), unused: RefCell::default() }
    }

    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<(Vec<String>, Source)>) {
        (self.unknown.into_inner(), self.unused.into_inner())
    }

    pub(super) fn unknown(&self, node: &Node, at: &At<'_>, key: &str, known: &[&str]) {
        if self.lenient && node.source.layer == Layer::File {
            self.unused.borrow_mut().push((at.path(), node.source.clone()));
            return;
        }
        let mut fault = Fault::new(unknown_key(key, known)).at(at);
        fault.kind = ProblemKind::UnknownKey;
        self.unknown.borrow_mut().push(fault);
    }
}

/// Where in the tree we are; lives on the stack.
pub(super) enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl At<'_> {
    pub(super) fn path(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut at = self;
        loop {
            at = match at {
                At::Root => break,
                At::Key(parent, key) => {
                    keys.push((*key).to_owned());
                    parent
                }
                At::Index(parent, index) => {
                    keys.push(index.to_string());
                    parent
                }
            };
        }
        keys.reverse();
        keys
    }
}
