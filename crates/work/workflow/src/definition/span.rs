//! A length of time in words, `"2 business_days"`, which only a calendar turns into an instant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most of any unit: about ten years of days.
pub(crate) const MAX_AMOUNT: u32 = 100_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds on the wall.
    Seconds,
    /// Minutes on the wall.
    Minutes,
    /// Hours on the wall.
    Hours,
    /// Days of 24 hours.
    Days,
    /// Minutes of working time.
    BusinessMinutes,
    /// Hours of working time.
    BusinessHours,
    /// Working days: the same time of day so many working days later.
    BusinessDays,
}

impl Unit {
    const ALL: [(Self, &str, &str); 7] = [
        (Self::Seconds, "seconds", "second"),
        (Self::Minutes, "minutes", "minute"),
        (Self::Hours, "hours", "hour"),
        (Self::Days, "days", "day"),
        (Self::BusinessMinutes, "business_minutes", "business_minute"),
        (Self::BusinessHours, "business_hours", "business_hour"),
        (Self::BusinessDays, "business_days", "business_day"),
    ];

    /// Whether a calendar is needed.
    pub const fn is_business(self) -> bool {
        matches!(self, Self::BusinessMinutes | Self::BusinessHours | Self::BusinessDays)
    }
}

/// A length of time: a whole number and its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many.
    pub amount: u32,
    /// Of what.
    pub unit: Unit,
}

impl Span {
    /// So many of a unit.
    pub const fn new(amount: u32, unit: Unit) -> Self {
        Self { amount, unit }
    }
}

/// Text that is not a span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a span such as \"4 hours\" or \"2 business_days\": a whole number up to 100000, and one of seconds, \
     minutes, hours, days, business_minutes, business_hours, business_days"
)]
pub struct SpanError(String);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Unit::ALL.iter().find(|(unit, ..)| *unit == self.unit);
        let (many, one) = name.map_or(("", ""), |(_, many, one)| (*many, *one));
        write!(f, "{} {}", self.amount, if self.amount == 1 { one } else { many })
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(text.chars().take(64).collect());
        let (amount, unit) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let amount = amount.parse().ok().filter(|amount| *amount <= MAX_AMOUNT).ok_or_else(wrong)?;
        let unit = unit.trim();
        let found = Unit::ALL.iter().find(|(_, many, one)| unit == *many || unit == *one);
        found.map(|(unit, ..)| Self { amount, unit: *unit }).ok_or_else(wrong)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A whole number and its unit.",
            "pattern": "^[0-9]{1,6} +(seconds?|minutes?|hours?|days?|business_(minutes?|hours?|days?))$",
            "examples": ["4 hours", "2 business_days"],
        })
    }
}
