//! The schemas of a document: of what is read and of what is written, under names that do not clash.

use std::collections::BTreeSet;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

const PREFIX: &str = "#/components/schemas/";

/// Collects schemas while operations are described.
pub(crate) struct Schemas {
    /// Of what callers send.
    pub(crate) input: SchemaGenerator,
    /// Of what they get.
    pub(crate) output: SchemaGenerator,
}

impl Schemas {
    pub(crate) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12()
                .with(|settings| settings.definitions_path = "/components/schemas".into())
        };
        Self { input: settings().into_generator(), output: settings().for_serialize().into_generator() }
    }

    /// Every schema by name. Where a type is written otherwise than it is read, the answers in `paths` are made to
    /// name the written form.
    pub(crate) fn finish(mut self, paths: &mut Map<String, Value>) -> Map<String, Value> {
        let mut schemas = self.input.take_definitions(true);
        let written = self.output.take_definitions(true);
        let clashing = clashing(&schemas, &written);
        for (name, mut schema) in written {
            rename(&mut schema, &clashing);
            let name = if clashing.contains(&name) { output_name(&name) } else { name };
            schemas.insert(name, schema);
        }
        for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            if let Some(responses) = operation.get_mut("responses") {
                rename(responses, &clashing);
            }
        }
        schemas
    }
}

/// Names whose schemas differ, and those whose written form leads to such a one.
fn clashing(read: &Map<String, Value>, written: &Map<String, Value>) -> BTreeSet<String> {
    let differs = |(name, schema): &(&String, &Value)| read.get(*name).is_some_and(|other| other != *schema);
    let mut clashing: BTreeSet<String> =
        written.iter().filter(differs).map(|(name, _)| name.clone()).collect();
    loop {
        let before = clashing.len();
        for (name, schema) in written {
            if read.contains_key(name) && refers(schema, &clashing) {
                clashing.insert(name.clone());
            }
        }
        if clashing.len() == before {
            return clashing;
        }
    }
}

fn output_name(name: &str) -> String {
    format!("{name}Output")
}

fn target(key: &str, value: &Value) -> Option<String> {
    let reference = value.as_str().filter(|_| key == "$ref")?;
    reference.strip_prefix(PREFIX).map(str::to_owned)
}

fn refers(schema: &Value, names: &BTreeSet<String>) -> bool {
    match schema {
        Value::Object(table) => table.iter().any(|(key, value)| {
            target(key, value).is_some_and(|name| names.contains(&name)) || refers(value, names)
        }),
        Value::Array(items) => items.iter().any(|item| refers(item, names)),
        _ => false,
    }
}

fn rename(schema: &mut Value, names: &BTreeSet<String>) {
    match schema {
        Value::Object(table) => {
            for (key, value) in table {
                match target(key, value).filter(|name| names.contains(name)) {
                    Some(name) => *value = Value::String(format!("{PREFIX}{}", output_name(&name))),
                    None => rename(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}
