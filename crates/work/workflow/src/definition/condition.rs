//! Conditions over an entity's data. What cannot be compared is an error with a place, never a silent "no".

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::operand::{compare, kind, regex};

/// Conditions may be nested so deep.
pub(crate) const MAX_DEPTH: usize = 16;

/// A condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Every one holds; looked at in order until one does not.
    All(Vec<Condition>),
    /// One holds at least; looked at in order until one does.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// A field passes a test.
    Is(Test),
}

/// A field compared with a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Where in the entity: `amount`, `lines.0.price`, or a JSON pointer (RFC 6901) `/lines/0/price`.
    pub field: String,
    /// How it is compared.
    pub op: Operator,
    /// With what; left out for `exists`, `not_exists` and `empty`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
}

/// How a field is compared. Nothing is converted: `"10"` is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// The same value; numbers by what they are worth.
    Eq,
    /// Another value.
    Ne,
    /// Greater: numbers, times (RFC 3339), texts.
    Gt,
    /// Greater or the same.
    Gte,
    /// Less.
    Lt,
    /// Less or the same.
    Lte,
    /// Within a list of two, ends included.
    Between,
    /// One of a list.
    In,
    /// None of a list.
    NotIn,
    /// A text has this part, or a list this item.
    Contains,
    /// It has not.
    NotContains,
    /// A text begins so.
    StartsWith,
    /// A text ends so.
    EndsWith,
    /// A text matches a regular expression.
    Matches,
    /// The field is there and not null.
    Exists,
    /// It is not.
    NotExists,
    /// Absent, null, or a text, list or object with nothing in it.
    Empty,
}

impl Operator {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Between => "between",
            Self::In => "in",
            Self::NotIn => "not_in",
            Self::Contains => "contains",
            Self::NotContains => "not_contains",
            Self::StartsWith => "starts_with",
            Self::EndsWith => "ends_with",
            Self::Matches => "matches",
            Self::Exists => "exists",
            Self::NotExists => "not_exists",
            Self::Empty => "empty",
        }
    }

    pub(crate) const fn takes_value(self) -> bool {
        !matches!(self, Self::Exists | Self::NotExists | Self::Empty)
    }
}

/// A condition that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// The entity has no such field.
    #[error("the entity has no `{field}`, which `{op}` compares")]
    Missing {
        /// Where.
        field: String,
        /// The operator.
        op: &'static str,
    },
    /// The field and the value cannot be compared so.
    #[error("`{field}` is {found}; `{op}` compares {wanted}")]
    Mismatch {
        /// Where.
        field: String,
        /// The operator.
        op: &'static str,
        /// What it can compare here.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The value is none for this operator.
    #[error("`{op}` cannot use the value given for `{field}`: {why}")]
    Value {
        /// Where.
        field: String,
        /// The operator.
        op: &'static str,
        /// Why.
        why: String,
    },
}

impl Condition {
    /// Whether it holds for an entity.
    ///
    /// # Errors
    /// [`ConditionError`] when a field is missing or has a type the operator does not compare.
    pub fn holds(&self, entity: &Value) -> Result<bool, ConditionError> {
        match self {
            Self::All(all) => {
                for condition in all {
                    if !condition.holds(entity)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(any) => {
                for condition in any {
                    if condition.holds(entity)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(condition) => condition.holds(entity).map(|holds| !holds),
            Self::Is(test) => test.passes(entity),
        }
    }
}

/// The value at a path.
pub(crate) fn value_at<'a>(entity: &'a Value, path: &str) -> Option<&'a Value> {
    if path.starts_with('/') {
        return entity.pointer(path);
    }
    path.split('.').try_fold(entity, |value, key| match value {
        Value::Object(fields) => fields.get(key),
        Value::Array(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
        _ => None,
    })
}

impl Test {
    fn passes(&self, entity: &Value) -> Result<bool, ConditionError> {
        let found = value_at(entity, &self.field).filter(|value| !value.is_null());
        match self.op {
            Operator::Exists => return Ok(found.is_some()),
            Operator::NotExists => return Ok(found.is_none()),
            Operator::Empty => return self.empty(found),
            Operator::Eq | Operator::Ne if self.value.is_null() => {
                return Ok(found.is_none() == (self.op == Operator::Eq));
            }
            _ => {}
        }
        let missing = || ConditionError::Missing { field: self.field.clone(), op: self.op.as_str() };
        let found = found.ok_or_else(missing)?;
        match self.op {
            Operator::Eq => self.same(found, &self.value),
            Operator::Ne => self.same(found, &self.value).map(|same| !same),
            Operator::Gt => self.order(found, &self.value).map(std::cmp::Ordering::is_gt),
            Operator::Gte => self.order(found, &self.value).map(std::cmp::Ordering::is_ge),
            Operator::Lt => self.order(found, &self.value).map(std::cmp::Ordering::is_lt),
            Operator::Lte => self.order(found, &self.value).map(std::cmp::Ordering::is_le),
            Operator::Between => match self.list()? {
                [low, high] => Ok(self.order(found, low)?.is_ge() && self.order(found, high)?.is_le()),
                _ => Err(self.value_error("a list of two, the lower first, is needed")),
            },
            Operator::In => self.among(found),
            Operator::NotIn => self.among(found).map(|among| !among),
            Operator::Contains => self.contains(found),
            Operator::NotContains => self.contains(found).map(|contains| !contains),
            Operator::StartsWith => self.texts(found).map(|(text, part)| text.starts_with(part)),
            Operator::EndsWith => self.texts(found).map(|(text, part)| text.ends_with(part)),
            Operator::Matches => {
                let (text, pattern) = self.texts(found)?;
                regex(pattern).map(|regex| regex.is_match(text)).map_err(|why| self.value_error(why))
            }
            Operator::Exists | Operator::NotExists | Operator::Empty => Ok(false),
        }
    }

    fn same(&self, found: &Value, value: &Value) -> Result<bool, ConditionError> {
        match (found, value) {
            (Value::Number(_), Value::Number(_)) => self.order(found, value).map(std::cmp::Ordering::is_eq),
            _ if kind(found) == kind(value) => Ok(found == value),
            _ => Err(self.mismatch(kind(value), found)),
        }
    }

    fn order(&self, found: &Value, value: &Value) -> Result<std::cmp::Ordering, ConditionError> {
        compare(found, value).ok_or_else(|| self.mismatch("two numbers, two times or two texts", found))
    }

    fn among(&self, found: &Value) -> Result<bool, ConditionError> {
        let mut of_kind = false;
        for value in self.list()?.iter().filter(|value| kind(value) == kind(found)) {
            of_kind = true;
            if self.same(found, value)? {
                return Ok(true);
            }
        }
        if of_kind { Ok(false) } else { Err(self.mismatch("with a list of the same type", found)) }
    }

    fn contains(&self, found: &Value) -> Result<bool, ConditionError> {
        match found {
            Value::Array(items) => Ok(items.iter().any(|item| self.same(item, &self.value).unwrap_or(false))),
            Value::String(_) => self.texts(found).map(|(text, part)| text.contains(part)),
            _ => Err(self.mismatch("texts and lists", found)),
        }
    }

    fn empty(&self, found: Option<&Value>) -> Result<bool, ConditionError> {
        match found {
            None => Ok(true),
            Some(Value::String(text)) => Ok(text.is_empty()),
            Some(Value::Array(items)) => Ok(items.is_empty()),
            Some(Value::Object(fields)) => Ok(fields.is_empty()),
            Some(other) => Err(self.mismatch("texts, lists and objects", other)),
        }
    }

    fn texts<'a>(&'a self, found: &'a Value) -> Result<(&'a str, &'a str), ConditionError> {
        let part = self.value.as_str().ok_or_else(|| self.value_error("a text is needed"))?;
        found.as_str().map(|text| (text, part)).ok_or_else(|| self.mismatch("texts", found))
    }

    fn list(&self) -> Result<&[Value], ConditionError> {
        self.value.as_array().map(Vec::as_slice).ok_or_else(|| self.value_error("a list is needed"))
    }

    fn mismatch(&self, wanted: &'static str, found: &Value) -> ConditionError {
        ConditionError::Mismatch {
            field: self.field.clone(),
            op: self.op.as_str(),
            wanted,
            found: kind(found),
        }
    }

    fn value_error(&self, why: impl Into<String>) -> ConditionError {
        ConditionError::Value { field: self.field.clone(), op: self.op.as_str(), why: why.into() }
    }
}
