//! What texts in requests look like, exactly enough for a client to know before it asks.

use runtime_kernel::{Error, ErrorKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident $schema:tt)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

texts! {
    /// An id.
    Id { "type": "string", "format": "uuid" }
    /// A duration, longer than none.
    Span { "type": "string", "pattern": "^[1-9][0-9]{0,4}(ms|s|m|h|d)$", "examples": ["30s", "90d"] }
    /// A duration of none to 90 days.
    Overlap {
        "type": "string",
        "pattern": "^([0-9]{1,5}(ms|s)|[0-9]{1,4}m|[0-9]{1,3}h|([0-8]?[0-9]|90)d)$",
        "examples": ["0s", "24h"]
    }
    /// An object whose members the documentation of the crate describes.
    Object { "type": "object" }
    /// A line of text.
    Line { "type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]{0,200}$" }
    /// A line of text that is not empty.
    Label { "type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,200}$" }
    /// Where a job stands.
    StateName {
        "type": "string",
        "enum": ["waiting", "scheduled", "available", "running", "completed", "dead", "cancelled"]
    }
    /// How those a job waits for must have ended.
    TriggerName { "type": "string", "enum": ["completed", "eventually", "ended", "failed"] }
    /// A moment (RFC 3339).
    Moment { "type": "string", "format": "date-time" }
    /// What may be done.
    Scope { "type": "string", "pattern": "^[!-~]{1,128}$", "examples": ["jobs:write", "*"] }
}

/// Refuses what [`Label`] does not describe.
pub(crate) fn check_label(at: &str, text: Option<&str>) -> Result<(), Error> {
    let fits = |text: &str| (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if text.is_none_or(fits) {
        return Ok(());
    }
    let message = "must have 1 to 200 characters, none of them control characters";
    Err(Error::new(ErrorKind::Invalid, "http.invalid_json", format!("`{at}` {message}"))
        .with_detail(at, message))
}

/// How many entries a page has: so many unless told, 1000 at most.
pub(crate) fn page(limit: Option<u32>, unless_told: u32) -> Result<u32, Error> {
    let limit = limit.unwrap_or(unless_told);
    if (1..=1000).contains(&limit) {
        return Ok(limit);
    }
    let wrong = Error::new(ErrorKind::Invalid, "http.invalid_query", "`limit` must be 1 to 1000");
    Err(wrong.with_detail("limit", "must be 1 to 1000"))
}

/// Reads a struct from an object only; serde would take an array too.
pub(crate) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let fields = Option::<Map<String, Value>>::deserialize(deserializer)?;
    fields.map(|fields| T::deserialize(Value::Object(fields)).map_err(D::Error::custom)).transpose()
}

/// Reads a whole number in any form JSON Schema calls an integer: `3`, and `3.0` too.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = || D::Error::custom(format!("{number} is not a whole number in range"));
    let whole = number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15)?;
        format!("{float:.0}").parse().ok()
    });
    whole.and_then(|whole| T::try_from(whole).ok()).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_read_in_every_form_json_has_for_it() {
        let read = |text: &str| whole::<_, i16>(&mut serde_json::Deserializer::from_str(text)).ok();
        for (text, expected) in [
            ("3", Some(Some(3))),
            ("-3.0", Some(Some(-3))),
            ("3e2", Some(Some(300))),
            ("null", Some(None)),
            ("3.5", None),
            ("32768", None),
            ("1e300", None),
            (r#""3""#, None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
