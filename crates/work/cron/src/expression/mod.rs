//! A cron expression: masks of times, and the search through them.

pub(crate) mod civil;
mod days;
mod dialect;
mod error;
pub(crate) mod hash;
mod occurrence;
mod parse;
mod search;

use std::fmt;
use std::str::FromStr;

use runtime_kernel::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::days::Days;
pub use self::dialect::{DayRule, Dialect, Dst, DstGap, DstOverlap, Intervals, Syntax};
pub use self::error::{Field, ParseError, Problem};
use crate::zone::Zone;

/// The first year a year field may name (OCPS 1.2 and 1.4: an even lower bound; `*/2` begins here).
pub(crate) const YEARS_FROM: i32 = 1970;

/// What the fields allow. Bit `n` of a mask is the value `n`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fields {
    pub(crate) seconds: u64,
    pub(crate) minutes: u64,
    pub(crate) hours: u32,
    pub(crate) months: u16,
    pub(crate) days: Days,
    /// In order; `None` for every year.
    pub(crate) years: Option<Box<[i32]>>,
    /// Names an interval rather than a time of day.
    pub(crate) interval: bool,
}

/// A cron expression, read and known to be possible.
///
/// ```
/// use runtime_cron::{CronExpression, Zone};
///
/// let monthly: CronExpression = "30 9 LW * *".parse()?;
/// let berlin = Zone::get("Europe/Berlin")?;
/// let payday = monthly.next_after("2026-01-01T00:00:00Z".parse()?, &berlin);
/// assert_eq!(payday, Some("2026-01-30T08:30:00Z".parse()?));
///
/// let error = "0 25 * * *".parse::<CronExpression>().unwrap_err();
/// assert_eq!(error.to_string(), "hour field, at 2: `25` is not 0 to 23");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CronExpression {
    text: Box<str>,
    dialect: Dialect,
    fields: Fields,
}

impl CronExpression {
    /// Reads an expression of 5, 6 (seconds first) or 7 (years last) fields, or a nickname, as [`Dialect::OCPS`] has it.
    ///
    /// # Errors
    /// [`ParseError`] names the field, the place and what is wrong. What could never happen, like 31 February, is
    /// refused too.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_with(text, Dialect::OCPS, None)
    }

    /// Reads an expression in another dialect. `H` is hashed from `name`, and refused without one.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(text: &str, dialect: Dialect, name: Option<&str>) -> Result<Self, ParseError> {
        let fields = parse::parse(text, dialect, name.map(hash::name))?;
        Ok(Self { text: text.trim().into(), dialect, fields })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it was read.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The first time after `at`; `None` when there is none up to the year 9999.
    pub fn next_after(&self, at: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let floor = at.as_microsecond().div_euclid(1_000_000);
        self.next_second(floor, zone).and_then(timestamp)
    }

    /// The last time before `at`; `None` when there is none since the year 1.
    pub fn previous_before(&self, at: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let ceiling = -(-at.as_microsecond()).div_euclid(1_000_000);
        self.previous_second(ceiling, zone).and_then(timestamp)
    }

    /// The times after `at`, in order.
    pub fn upcoming<'e>(&'e self, at: Timestamp, zone: &'e Zone) -> Upcoming<'e> {
        Upcoming { expression: self, zone, at: Some(at) }
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(crate) fn dst(&self) -> Dst {
        if self.fields.interval { self.dialect.interval } else { self.dialect.fixed }
    }
}

fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(second.checked_mul(1_000_000)?).ok()
}

/// The times of an expression, one after the other.
#[derive(Clone, Debug)]
pub struct Upcoming<'e> {
    expression: &'e CronExpression,
    zone: &'e Zone,
    at: Option<Timestamp>,
}

impl Iterator for Upcoming<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        self.at = self.expression.next_after(self.at?, self.zone);
        self.at
    }
}

impl FromStr for CronExpression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronExpression({})", self.text)
    }
}

impl Serialize for CronExpression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for CronExpression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
