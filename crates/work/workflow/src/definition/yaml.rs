//! YAML 1.2 (core schema) as JSON, from the event stream of `saphyr-parser`.
//!
//! A tree of our own bounds what anchors can expand to and refuses keys that are there twice.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

use crate::error::WorkflowError;

/// Values a document may hold after its aliases are resolved ("billion laughs").
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 64;

pub(super) fn parse(text: &str) -> Result<Value, WorkflowError> {
    let mut events = Events { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        let (event, span) = events.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or(Value::Null)),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(wrong(span, "only one YAML document is read"));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(events.value(event, span, 0)?),
        }
    }
}

struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), WorkflowError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(unreadable(error.marker().line(), error.info())),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Value, WorkflowError> {
        let before = self.nodes;
        self.count(1, span)?;
        if depth > MAX_DEPTH {
            return Err(wrong(span, format!("nested deeper than {MAX_DEPTH}")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (if plain { plain_scalar(&text) } else { Value::String(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let (value, size) = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or_else(|| wrong(span, "an alias refers to nothing before it"))?;
                self.count(size, span)?;
                return Ok(value);
            }
            _ => return Err(wrong(span, "a value is missing")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), self.nodes - before));
        }
        Ok(value)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, WorkflowError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.value(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, WorkflowError> {
        let mut fields = Map::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Object(fields)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(wrong(span, "a key must be a plain word")),
            };
            let (event, value_span) = self.next()?;
            let value = self.value(event, value_span, depth + 1)?;
            if fields.insert(key.clone(), value).is_some() {
                return Err(wrong(span, format!("the key {key:?} is there twice")));
            }
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), WorkflowError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(wrong(span, format!("more than {MAX_NODES} values after aliases are resolved")));
        }
        Ok(())
    }
}

/// The core schema (YAML 1.2.2 §10.3.2) without its infinities, which JSON does not have; the rest is text.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let numeric = text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'));
    let number = if numeric {
        let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
        whole.ok().or_else(|| text.parse().ok().and_then(Number::from_f64))
    } else {
        None
    };
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn wrong(span: Span, why: impl Into<String>) -> WorkflowError {
    unreadable(span.start.line(), why)
}

fn unreadable(line: usize, why: impl Into<String>) -> WorkflowError {
    WorkflowError::Unreadable { at: format!("line {line}"), why: why.into() }
}
