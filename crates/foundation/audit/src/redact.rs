//! Takes secrets and excess out of an event before anybody writes it.

use std::borrow::Cow;

use runtime_telemetry::redact::{MASK, is_secret_name, text};
use serde_json::{Map, Value};

use crate::AuditEvent;

/// The longest id, kind or action, in bytes.
const MAX_NAME: usize = 512;
/// The longest message or text in `meta`, in bytes.
const MAX_TEXT: usize = 4 * 1024;
/// How deep `meta` may nest; deeper values are left out.
const MAX_DEPTH: usize = 8;
/// How many values `meta` may hold in all; further ones are left out.
const MAX_VALUES: usize = 256;

/// Cleans an event in place.
pub(crate) fn clean(event: &mut AuditEvent) {
    if event.action.len() > MAX_NAME {
        event.action = Cow::Owned(cut(&event.action, MAX_NAME).to_owned());
    }
    if let Some(actor) = &mut event.actor {
        actor.id = words(&actor.id, MAX_NAME);
    }
    if let Some(target) = &mut event.target {
        target.id = words(&target.id, MAX_NAME);
        if target.kind.len() > MAX_NAME {
            target.kind = Cow::Owned(cut(&target.kind, MAX_NAME).to_owned());
        }
    }
    if let Some(message) = &mut event.message {
        *message = words(message, MAX_TEXT);
    }
    let mut left = MAX_VALUES;
    event.meta = object(std::mem::take(&mut event.meta), 1, &mut left);
}

fn object(fields: Map<String, Value>, depth: usize, left: &mut usize) -> Map<String, Value> {
    let mut clean = Map::new();
    for (name, field) in fields {
        if *left == 0 {
            clean.insert("truncated".to_owned(), Value::Bool(true));
            break;
        }
        let secret = is_secret_name(&name);
        let name = words(&name, MAX_NAME);
        if secret {
            *left -= 1;
            clean.insert(name, Value::String(MASK.to_owned()));
        } else {
            clean.insert(name, value(field, depth, left));
        }
    }
    clean
}

fn value(value_in: Value, depth: usize, left: &mut usize) -> Value {
    *left = left.saturating_sub(1);
    match value_in {
        Value::Object(_) | Value::Array(_) if depth >= MAX_DEPTH => Value::String("truncated".to_owned()),
        Value::Object(fields) => Value::Object(object(fields, depth + 1, left)),
        Value::Array(items) => {
            let mut clean = Vec::new();
            for item in items {
                if *left == 0 {
                    clean.push(Value::String("truncated".to_owned()));
                    break;
                }
                clean.push(value(item, depth + 1, left));
            }
            Value::Array(clean)
        }
        Value::String(dirty) => Value::String(words(&dirty, MAX_TEXT)),
        plain => plain,
    }
}

/// Masked before it is cut: half a secret is still one.
fn words(dirty: &str, limit: usize) -> String {
    cut(&text(dirty), limit).to_owned()
}

fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn cleaned(meta: Value) -> Value {
        let Value::Object(meta) = meta else { panic!("an object") };
        let mut event = AuditEvent::new("a");
        event.meta = meta;
        clean(&mut event);
        Value::Object(event.meta)
    }

    #[test]
    fn secrets_go_at_any_depth() {
        assert_eq!(
            cleaned(json!({
                "user": "ann", "password": "x", "n": 1, "ok": true, "none": null,
                "headers": [{"Authorization": {"scheme": "Bearer", "value": "x"}}, "Bearer hunter2"],
                "db": {"url": "postgres://a:hunter2@h/d", "apiKey": ["x"]},
            })),
            json!({
                "user": "ann", "password": "***", "n": 1, "ok": true, "none": null,
                "headers": [{"Authorization": "***"}, "Bearer ***"],
                "db": {"url": "postgres://***@h/d", "apiKey": "***"},
            })
        );
    }

    #[test]
    fn excess_is_cut() {
        let mut deep = json!("bottom");
        for _ in 0..200 {
            deep = json!([deep]);
        }
        let wide: Vec<u32> = (0..10_000).collect();
        let text =
            serde_json::to_string(&cleaned(json!({"deep": deep, "wide": wide, "long": "é".repeat(100_000)})))
                .unwrap();
        assert!(
            text.len() < 10_000 && text.contains("truncated") && !text.contains("bottom"),
            "{}",
            text.len()
        );
    }

    proptest! {
        #[test]
        fn what_is_clean_stays_as_it_is(text in ".{0,80}") {
            let once = words(&text, MAX_TEXT);
            prop_assert_eq!(words(&once, MAX_TEXT), once);
        }
    }
}
