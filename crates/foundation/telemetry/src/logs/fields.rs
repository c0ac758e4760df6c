//! The fields of an event or span, redacted as they are taken.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};

use crate::redact;

/// The longest text of one field, in bytes; the rest is cut.
const MAX_TEXT: usize = 16 * 1024;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(value) => f.write_str(value),
            Self::Int(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

/// Fields in the order they were recorded; the last of a name counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(&'static str, Value)>);

impl Fields {
    /// None yet, in memory used before. Give it back with [`recycle`](Self::recycle).
    pub(crate) fn reused() -> Self {
        Self(SPARE.with_borrow_mut(|spare| spare.lists.pop().unwrap_or_default()))
    }

    /// Keeps the memory for the next.
    pub(crate) fn recycle(self) {
        SPARE.with_borrow_mut(|spare| spare.take_back(self));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(crate) fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name, value)),
        }
    }
}

thread_local!(static SPARE: RefCell<Spare> = const { RefCell::new(Spare { lists: Vec::new(), texts: Vec::new() }) });

/// Memory of records that are done with, for the next ones of the thread.
struct Spare {
    lists: Vec<Vec<(&'static str, Value)>>,
    texts: Vec<String>,
}

impl Spare {
    /// How much is kept, and how long a text may be to be kept.
    const KEPT: usize = 16;
    const LONGEST: usize = 1024;

    fn text(&mut self) -> String {
        self.texts.pop().unwrap_or_default()
    }

    fn take_back(&mut self, mut fields: Fields) {
        for (_, value) in fields.0.drain(..) {
            if let Value::Text(mut text) = value
                && text.capacity() <= Self::LONGEST
                && self.texts.len() < Self::KEPT
            {
                text.clear();
                self.texts.push(text);
            }
        }
        if self.lists.len() < Self::KEPT {
            self.lists.push(fields.0);
        }
    }
}

/// Whether a field of this name holds a secret. Field names are part of the program: what was found of one is
/// remembered by its place in memory, in one of two slots so that two names that share them do not drive each other out.
fn is_secret_name(name: &'static str) -> bool {
    const PAIRS: usize = 64;
    type Slots = [[(&'static str, bool); 2]; PAIRS];
    thread_local!(static KNOWN: RefCell<Slots> = const { RefCell::new([[("", false); 2]; PAIRS]) });
    // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, §6.4).
    let place = name.as_ptr().addr().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - PAIRS.ilog2());
    KNOWN.with_borrow_mut(|known| {
        let Some([first, second]) = known.get_mut(place) else { return redact::is_secret_name(name) };
        if std::ptr::eq(first.0, name) {
            return first.1;
        }
        // Whoever was asked for last comes first.
        std::mem::swap(first, second);
        if !std::ptr::eq(first.0, name) {
            *first = (name, redact::is_secret_name(name));
        }
        first.1
    })
}

/// Takes an event's or a span's fields.
pub(crate) struct Taker<'a> {
    pub(crate) fields: &'a mut Fields,
    /// Names to mask beside the known ones.
    pub(crate) also: &'a Arc<[String]>,
}

impl Taker<'_> {
    fn put(&mut self, field: &Field, value: impl FnOnce() -> Value) {
        let name = field.name();
        // For the exporter, not for readers.
        if name.starts_with("otel.") {
            return;
        }
        let secret = is_secret_name(name) || self.also.iter().any(|also| also.eq_ignore_ascii_case(name));
        let value = if secret { Value::Text(redact::MASK.to_owned()) } else { value() };
        self.fields.set(name, value);
    }

    fn text(&mut self, field: &Field, text: &str) {
        self.put(field, || {
            // Masked before it is cut: half a secret is still one.
            let clean = redact::text(text);
            let mut kept = SPARE.with_borrow_mut(Spare::text);
            kept.push_str(clean.get(..clean.floor_char_boundary(MAX_TEXT)).unwrap_or_default());
            Value::Text(kept)
        });
    }
}

impl Visit for Taker<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, || Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, || Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, || Value::Uint(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, || Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.text(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}
