//! TOML, through the `toml` crate's spanned tree.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{File, MAX_DEPTH, Malformed, line_at};
use crate::config::node::{Node, Table, Value};

pub(super) fn parse(file: &File, text: &str) -> Result<Node, Malformed> {
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        Malformed::new(line, format!("not TOML: {}", error.message()))
    })?;
    let reader = Reader { file, text };
    reader.table(document.get_ref(), 1, 0)
}

struct Reader<'a> {
    file: &'a File,
    text: &'a str,
}

impl Reader<'_> {
    fn table(&self, entries: &DeTable<'_>, line: usize, depth: usize) -> Result<Node, Malformed> {
        let mut table = Table::new();
        for (key, value) in entries {
            let line = line_at(self.text, key.span().start);
            table.insert(key.get_ref().clone().into_owned(), self.value(value, line, depth + 1)?);
        }
        Ok(Node::new(Value::Table(table), self.file.source(line)))
    }

    /// `line` is the key's: the line a person looks for.
    fn value(&self, value: &Spanned<DeValue<'_>>, line: usize, depth: usize) -> Result<Node, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Integer(integer) => Value::Number(
                i64::from_str_radix(integer.as_str(), integer.radix())
                    .map(Number::from)
                    .or_else(|_| u64::from_str_radix(integer.as_str(), integer.radix()).map(Number::from))
                    .map_err(|_| {
                        Malformed::new(line, format!("the integer {integer} does not fit 64 bits"))
                    })?,
            ),
            // `inf` and `nan` have no JSON number: kept as text, which a float target reads.
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Value::Number(number),
                None => Value::Text(float.as_str().to_owned()),
            },
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(moment) => Value::String(moment.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.value(item, line_at(self.text, item.span().start), depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(entries) => return self.table(entries, line, depth),
        };
        Ok(Node::new(value, self.file.source(line)))
    }
}
