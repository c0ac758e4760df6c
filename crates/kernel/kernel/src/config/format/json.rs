//! JSON: `serde_json` says whether the text is well-formed, this walk keeps the lines.

use serde_json::Value as Json;

use super::{File, MAX_DEPTH, Malformed, line_at};
use crate::config::node::{Node, Table, Value};

pub(super) fn parse(file: &File, text: &str) -> Result<Node, Malformed> {
    if text.trim().is_empty() {
        return Ok(Node::new(Value::Null, file.source(1)));
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|error| Malformed::new(error.line().max(1), format!("not JSON: {error}")))?;
    Walk { file, text, offset: 0 }.value(0)
}

/// Walks text that is known to be JSON.
struct Walk<'a> {
    file: &'a File,
    text: &'a str,
    offset: usize,
}

impl Walk<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, Malformed> {
        self.skip_space();
        let line = self.line();
        if depth > MAX_DEPTH {
            return Err(Malformed::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            _ => self.word()?,
        };
        Ok(Node::new(value, self.file.source(line)))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut table = Table::new();
        self.offset += 1;
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'"') => {
                    let line = self.line();
                    let key = self.string()?;
                    self.skip_space();
                    self.expect(b':')?;
                    let mut node = self.value(depth + 1)?;
                    node.source = self.file.source(line);
                    if table.insert(key.clone(), node).is_some() {
                        return Err(Malformed::new(line, format!("the key {key:?} is there twice")));
                    }
                }
                Some(b',') => self.offset += 1,
                _ => {
                    self.expect(b'}')?;
                    return Ok(Value::Table(table));
                }
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        self.offset += 1;
        loop {
            self.skip_space();
            match self.peek() {
                Some(b',') => self.offset += 1,
                Some(b']') => {
                    self.offset += 1;
                    return Ok(Value::Array(items));
                }
                _ => items.push(self.value(depth + 1)?),
            }
        }
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let start = self.offset;
        let mut escaped = true;
        let length = self.rest().bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        self.offset += length.map_or(self.rest().len(), |length| length + 1);
        let line = line_at(self.text, start);
        serde_json::from_str(self.text.get(start..self.offset).unwrap_or_default())
            .map_err(|error| Malformed::new(line, format!("not JSON: {error}")))
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Value, Malformed> {
        let rest = self.rest();
        let length = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        let line = self.line();
        let json: Json =
            serde_json::from_str(word).map_err(|error| Malformed::new(line, format!("not JSON: {error}")))?;
        self.offset += length;
        Ok(Node::from_json(json, &self.file.source(line)).value)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed::new(self.line(), format!("not JSON: expected `{}`", char::from(byte))));
        }
        self.offset += 1;
        Ok(())
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn rest(&self) -> &str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn line(&self) -> usize {
        line_at(self.text, self.offset)
    }
}
