//! YAML 1.2 (core schema), from the event stream of `saphyr-parser`.
//!
//! Building our own tree bounds what anchors can expand to and refuses duplicate keys.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::Number;

use super::{File, MAX_DEPTH, Malformed};
use crate::config::node::{Node, Table, Value};

/// How many nodes a document may hold after its aliases are resolved ("billion laughs").
const MAX_NODES: usize = 100_000;

pub(super) fn parse(file: &File, text: &str) -> Result<Node, Malformed> {
    let mut events = Events { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, file };
    let mut document = None;
    loop {
        let (event, span) = events.next()?;
        match event {
            Event::DocumentStart(_) if document.is_some() => {
                return Err(Malformed::new(span.start.line(), "only one YAML document is read"));
            }
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(events.node(event, span, 0)?),
        }
    }
    Ok(document.unwrap_or_else(|| Node::new(Value::Null, file.source(1))))
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    file: &'a File,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Malformed> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(malformed(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Malformed> {
        let line = span.start.line();
        self.count(1, line)?;
        if depth > MAX_DEPTH {
            return Err(Malformed::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (if plain { plain_scalar(&text) } else { Value::String(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).cloned();
                let node =
                    target.ok_or_else(|| Malformed::new(line, "an alias refers to nothing before it"))?;
                self.count(size(&node), line)?;
                return Ok(node);
            }
            _ => return Err(Malformed::new(line, "not YAML: a value is missing")),
        };
        let node = Node::new(value, self.file.source(line));
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut table = Table::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let key = match event {
                Event::MappingEnd => return Ok(Value::Table(table)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Malformed::new(line, "a key must be a plain word")),
            };
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, depth + 1)?;
            node.source = self.file.source(line);
            if table.insert(key.clone(), node).is_some() {
                return Err(Malformed::new(line, format!("the key {key:?} is there twice")));
            }
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Malformed> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(Malformed::new(
                line,
                format!("more than {MAX_NODES} values after aliases are resolved"),
            ));
        }
        Ok(())
    }
}

/// The core schema (YAML 1.2.2 §10.3.2); what it does not name is a string.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Text("inf".to_owned()),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Text("-inf".to_owned()),
        ".nan" | ".NaN" | ".NAN" => return Value::Text("nan".to_owned()),
        _ => {}
    }
    let prefixed =
        |prefix, radix| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok());
    if let Some(number) = prefixed("0x", 16).or_else(|| prefixed("0o", 8)) {
        return Value::Number(Number::from(number));
    }
    let looks_numeric = text
        .starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        && text.contains(|c: char| c.is_ascii_digit());
    if looks_numeric {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Number(Number::from(number));
        }
        if let Ok(number) = text.parse::<u64>() {
            return Value::Number(Number::from(number));
        }
        if let Some(number) = text.parse().ok().and_then(Number::from_f64) {
            return Value::Number(number);
        }
    }
    Value::String(text.to_owned())
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Table(table) => 1 + table.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn malformed(error: &ScanError) -> Malformed {
    Malformed::new(error.marker().line(), format!("not YAML: {}", error.info()))
}
