//! Days on which nothing is to happen: weekends, holidays.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::expression::civil;

/// The most dates one calendar may name.
const MAX_DATES: usize = 2_000;

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Days that are left out, by the schedule's own zone.
///
/// ```
/// use runtime_cron::Calendar;
///
/// let business = Calendar::weekends().without("12-25").without("2026-04-03");
/// assert_eq!(business.days, ["SAT", "SUN"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Calendar {
    /// Weekdays: `SAT`, `SUN`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// Dates: `2026-04-03` for that day, `12-25` for every year's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dates: Vec<String>,
}

impl Calendar {
    /// Leaves out Saturdays and Sundays.
    pub fn weekends() -> Self {
        Self { days: vec!["SAT".to_owned(), "SUN".to_owned()], dates: Vec::new() }
    }

    /// Leaves out a date too: `2026-04-03` or, every year, `12-25`.
    #[must_use]
    pub fn without(mut self, date: impl Into<String>) -> Self {
        self.dates.push(date.into());
        self
    }

    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty() && self.dates.is_empty()
    }

    /// Adds what another leaves out.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.days.extend(other.days.iter().cloned());
        self.dates.extend(other.dates.iter().cloned());
    }

    pub(crate) fn read(&self) -> Result<DaysOff, String> {
        if self.dates.len() > MAX_DATES {
            return Err(format!("names {} dates; at most {MAX_DATES} are kept", self.dates.len()));
        }
        let mut off = DaysOff::default();
        for day in &self.days {
            let index = (0u32..).zip(WEEKDAYS).find(|(_, name)| day.eq_ignore_ascii_case(name));
            let (index, _) = index.ok_or_else(|| format!("has no weekday `{day}`; write `SAT`"))?;
            off.weekdays |= 1 << index;
        }
        if off.weekdays == 0x7f {
            return Err("leaves out every day".to_owned());
        }
        for date in &self.dates {
            let wrong = || format!("has no date `{date}`; write `2026-12-25`, or `12-25` for every year");
            let mut parts = date.rsplit('-');
            let mut number = || -> Option<u32> { parts.next()?.parse().ok() };
            let (day, month) = (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
            let year = parts.next().map(|year| year.parse::<i32>().map_err(|_| wrong())).transpose()?;
            let leap = year.is_none_or(civil::is_leap);
            let exists = (1..=12).contains(&month) && (1..=civil::month_length(leap, month)).contains(&day);
            if !exists || parts.next().is_some() || year.is_some_and(|year| !(1970..=9999).contains(&year)) {
                return Err(wrong());
            }
            match year {
                Some(year) => drop(off.dates.insert(civil::days_of(year, month, day))),
                None => drop(off.yearly.insert((month, day))),
            }
        }
        Ok(off)
    }
}

/// A calendar, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DaysOff {
    weekdays: u8,
    dates: BTreeSet<i64>,
    yearly: BTreeSet<(u32, u32)>,
}

impl DaysOff {
    pub(crate) fn is_empty(&self) -> bool {
        self.weekdays == 0 && self.dates.is_empty() && self.yearly.is_empty()
    }

    /// Whether a day (since 1970-01-01) is left out.
    pub(crate) fn has(&self, day: i64) -> bool {
        self.weekdays & (1 << civil::weekday(day)) != 0 || self.dates.contains(&day) || {
            let (_, month, date) = civil::date_of(day);
            self.yearly.contains(&(month, date))
        }
    }
}
