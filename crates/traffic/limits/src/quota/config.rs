//! What an operator writes about a quota.

use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::LimitsError;

/// How much of something each tenant may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct QuotaConfig {
    /// How much, at most 2⁶³ − 1.
    pub limit: u64,
    /// Whether what is taken counts until it is given back (`standing`), or until the `day` or `month` ends, in UTC.
    /// Default standing.
    #[serde(default)]
    pub per: Period,
    /// How much single tenants may have instead, by `realm/tenant`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, u64>,
}

/// What a quota is counted over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Period {
    /// Until it is given back.
    #[default]
    Standing,
    /// A day of UTC.
    Day,
    /// A month of UTC.
    Month,
}

impl QuotaConfig {
    /// So much, until it is given back.
    pub fn standing(limit: u64) -> Self {
        Self { limit, per: Period::Standing, tenants: BTreeMap::new() }
    }

    /// So much in a day or month.
    pub fn per(limit: u64, per: Period) -> Self {
        Self { limit, per, tenants: BTreeMap::new() }
    }

    pub(crate) fn check(&self, name: &str) -> Result<(), LimitsError> {
        let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(clean) {
            let message = "must be named by 1 to 64 letters, digits, `_`, `.` or `-`";
            return Err(LimitsError::new(format!("quotas.{name}"), message));
        }
        let own = std::iter::once((format!("quotas.{name}.limit"), self.limit));
        let tenants =
            self.tenants.iter().map(|(tenant, limit)| (format!("quotas.{name}.tenants.{tenant}"), *limit));
        match own.chain(tenants).find(|(_, limit)| i64::try_from(*limit).is_err()) {
            Some((key, _)) => Err(LimitsError::new(key, "must be at most 9223372036854775807")),
            None => Ok(()),
        }
    }
}

impl Period {
    /// The second the present period began in, 0 for a standing quota, and when the next one begins.
    pub(super) fn span(self, now: Timestamp) -> (i64, Option<Timestamp>) {
        let today = date(now);
        let (first, next) = match self {
            Self::Standing => return (0, None),
            Self::Day => (today, today.saturating_add(1.day())),
            Self::Month => (today.first_of_month(), today.first_of_month().saturating_add(1.month())),
        };
        (begins(first).map_or(0, Timestamp::as_second), begins(next))
    }
}

/// The day in UTC. The last that jiff knows for what lies beyond, a day before the year 10000.
fn date(at: Timestamp) -> Date {
    let at = jiff::Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(TimeZone::UTC).date()
}

/// When a day begins in UTC.
fn begins(date: Date) -> Option<Timestamp> {
    let zoned = date.to_zoned(TimeZone::UTC).ok()?;
    Timestamp::from_microsecond(zoned.timestamp().as_microsecond()).ok()
}
