//! The value of an extension attribute.

use std::fmt;

use serde_json::Value;

use super::check;
use crate::error::EventsError;

/// The value of an extension. Values of the other types the specification knows (binary, URI, timestamp) travel as
/// their canonical strings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttributeValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number of 32 bits.
    Integer(i32),
    /// Text without control characters.
    String(String),
}

impl AttributeValue {
    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn check(&self, attribute: &str) -> Result<(), EventsError> {
        self.as_str().map_or(Ok(()), |text| check::string(attribute, text))
    }

    pub(crate) fn from_json(attribute: &str, value: Value) -> Result<Self, EventsError> {
        let value = match value {
            Value::Bool(value) => Self::Boolean(value),
            Value::String(text) => Self::String(text),
            Value::Number(number) => {
                let integer = number.as_i64().and_then(|number| i32::try_from(number).ok());
                Self::Integer(
                    integer.ok_or_else(|| {
                        EventsError::attribute(attribute, "is not a whole number of 32 bits")
                    })?,
                )
            }
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(EventsError::attribute(attribute, "is neither a boolean, a number nor a string"));
            }
        };
        value.check(attribute)?;
        Ok(value)
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Boolean(value) => Value::Bool(*value),
            Self::Integer(value) => Value::from(*value),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

/// The canonical string of the specification's type system.
impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for AttributeValue {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}
