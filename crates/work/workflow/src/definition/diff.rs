//! What changed between two versions, and whether running approvals would have gone differently.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Definition;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Where: `steps.finance.requirement`; steps are named by their ids, so that moving one is no difference of it.
    pub path: String,
    /// What happened there.
    pub change: Change,
    /// Whether who decides, how many must agree, or when, is no longer the same.
    pub breaking: bool,
}

/// What happened at a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added(Value),
    /// It is gone.
    Removed(Value),
    /// It is another.
    Changed {
        /// What it was.
        from: Value,
        /// What it is.
        to: Value,
    },
}

impl Definition {
    /// What is different in `next`.
    pub fn diff(&self, next: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        compare("", &shape(self), &shape(next), &mut found);
        found
    }
}

/// The definition with its steps by id.
fn shape(definition: &Definition) -> Value {
    let mut whole = serde_json::to_value(definition).unwrap_or_default();
    let steps = definition.steps.iter().map(|step| {
        let mut value = serde_json::to_value(step).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("id");
        }
        (step.id.clone(), value)
    });
    if let Some(fields) = whole.as_object_mut() {
        fields.insert("steps".to_owned(), Value::Object(steps.collect()));
    }
    whole
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        let change = Change::Changed { from: old.clone(), to: new.clone() };
        found.push(Difference { path: path.to_owned(), change, breaking: breaking(path) });
        return;
    };
    for (key, value) in before {
        let at = join(path, key);
        if let Some(other) = after.get(key) {
            compare(&at, value, other, found);
        } else {
            let breaking = breaking(&at);
            found.push(Difference { path: at, change: Change::Removed(value.clone()), breaking });
        }
    }
    for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        let at = join(path, key);
        let breaking = breaking(&at);
        found.push(Difference { path: at, change: Change::Added(value.clone()), breaking });
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Names, and which definition is chosen, decide nothing once an instance runs.
fn breaking(path: &str) -> bool {
    let step_name = path.strip_prefix("steps.").is_some_and(|rest| rest.strip_suffix(".name").is_some());
    !(step_name || matches!(path, "name" | "priority" | "when"))
}
