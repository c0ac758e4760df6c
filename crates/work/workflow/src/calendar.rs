//! Working time: which hours of which days count, in which time zone, and how spans are added to an instant.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::definition::{Span, Unit};

/// Free days that may be listed.
pub(crate) const MAX_HOLIDAYS: usize = 1000;

/// Working time is looked for so many days ahead: more than the free days that may be listed, one per week.
const HORIZON: u32 = 40_000;

const MICROS: i64 = 1_000_000;

/// When people work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    /// The time zone: `Europe/Berlin`, `UTC`.
    pub zone: String,
    /// Working hours by day, `"09:00-12:30"`; days that are absent are free. Monday to Friday 09:00-17:00 unless told.
    #[serde(default = "office")]
    pub week: BTreeMap<Day, Vec<String>>,
    /// Free days, `"2026-12-25"`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub holidays: BTreeSet<String>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the days of the week")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

const DAYS: [Day; 7] =
    [Day::Monday, Day::Tuesday, Day::Wednesday, Day::Thursday, Day::Friday, Day::Saturday, Day::Sunday];

fn office() -> BTreeMap<Day, Vec<String>> {
    DAYS.into_iter().take(5).map(|day| (day, vec!["09:00-17:00".to_owned()])).collect()
}

impl Calendar {
    /// Monday to Friday, nine to five.
    pub fn office(zone: impl Into<String>) -> Self {
        Self { zone: zone.into(), week: office(), holidays: BTreeSet::new() }
    }
}

/// A calendar that has been read.
#[derive(Clone, Debug)]
pub(crate) struct Hours {
    zone: TimeZone,
    week: BTreeMap<i8, Vec<(Time, Time)>>,
    holidays: BTreeSet<Date>,
}

/// What is wrong with a calendar: under which key, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadCalendar {
    pub(crate) key: String,
    pub(crate) why: String,
}

impl Hours {
    pub(crate) fn new(calendar: &Calendar) -> Result<Self, BadCalendar> {
        let bad = |key: String, why: String| BadCalendar { key, why };
        let zone = TimeZone::get(&calendar.zone)
            .map_err(|_| bad("zone".to_owned(), format!("there is no time zone `{}`", calendar.zone)))?;
        let mut week = BTreeMap::new();
        for (day, hours) in &calendar.week {
            let mut read: Vec<(Time, Time)> = Vec::new();
            for (index, text) in hours.iter().enumerate() {
                let key = format!("week.{}[{index}]", format!("{day:?}").to_lowercase());
                let (open, close) = interval(text).ok_or_else(|| {
                    bad(key.clone(), format!("`{text}` is not a time of day such as \"09:00-17:00\""))
                })?;
                if read.last().is_some_and(|(_, before)| open < *before) {
                    return Err(bad(key, format!("`{text}` begins before the hours listed before it end")));
                }
                read.push((open, close));
            }
            let number = DAYS.iter().position(|known| known == day).and_then(|at| i8::try_from(at).ok());
            if let (Some(number), false) = (number, read.is_empty()) {
                week.insert(number, read);
            }
        }
        if week.is_empty() {
            return Err(bad("week".to_owned(), "nobody ever works".to_owned()));
        }
        if calendar.holidays.len() > MAX_HOLIDAYS {
            return Err(bad("holidays".to_owned(), format!("at most {MAX_HOLIDAYS} are accepted")));
        }
        let mut holidays = BTreeSet::new();
        for text in &calendar.holidays {
            let date = text.parse::<Date>();
            let why = || bad("holidays".to_owned(), format!("`{text}` is not a date such as \"2026-12-25\""));
            holidays.insert(date.map_err(|_| why())?);
        }
        Ok(Self { zone, week, holidays })
    }

    /// The hours of a date; none when it is free.
    fn of(&self, date: Date) -> &[(Time, Time)] {
        if self.holidays.contains(&date) {
            return &[];
        }
        self.week.get(&date.weekday().to_monday_zero_offset()).map_or(&[], Vec::as_slice)
    }

    /// The first working moment at or after an instant, in microseconds, and how long work goes on from there.
    fn open_from(&self, from: i64) -> Option<(i64, i64)> {
        let mut date = self.local(from)?.date();
        for _ in 0..HORIZON {
            for (open, close) in self.of(date) {
                let (open, close) = (self.instant(date, *open)?, self.instant(date, *close)?);
                if from < close {
                    let start = from.max(open);
                    return Some((start, close - start));
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn add_working(&self, from: i64, mut left: i64) -> Option<i64> {
        let (mut at, mut room) = self.open_from(from)?;
        while left > room {
            left -= room;
            (at, room) = self.open_from(at + room)?;
        }
        Some(at + left)
    }

    /// The same time of day so many working days later. Work that starts outside working hours starts when they next
    /// begin; a time of day that the target day does not have becomes its closest working moment before.
    fn add_days(&self, from: i64, days: u32) -> Option<i64> {
        let start = self.local(self.open_from(from)?.0)?;
        let (mut date, mut left) = (start.date(), days);
        for _ in 0..HORIZON {
            if left == 0 {
                break;
            }
            date = date.tomorrow().ok()?;
            left -= u32::from(!self.of(date).is_empty());
        }
        let hours = self.of(date);
        let time = start.time();
        let inside = hours.iter().find(|(open, close)| *open <= time && time <= *close);
        let before = hours.iter().rev().find(|(_, close)| *close < time).map(|(_, close)| *close);
        let time = match inside {
            Some(_) => time,
            None => before.or_else(|| hours.first().map(|(open, _)| *open))?,
        };
        if left == 0 { self.instant(date, time) } else { None }
    }

    /// Of a time of day that a change of the clocks skips or repeats, the compatible instant (RFC 5545 §3.3.5).
    fn instant(&self, date: Date, time: Time) -> Option<i64> {
        let (date, time) = if time == Time::MAX { (date.tomorrow().ok()?, Time::MIN) } else { (date, time) };
        let at = self.zone.to_ambiguous_timestamp(DateTime::from_parts(date, time)).compatible().ok()?;
        Some(at.as_microsecond())
    }

    fn local(&self, micros: i64) -> Option<DateTime> {
        jiff::Timestamp::from_microsecond(micros).ok().map(|at| self.zone.to_datetime(at))
    }
}

/// An instant later by a span; `None` beyond the calendar's or the clock's end.
pub(crate) fn add(from: Timestamp, span: Span, hours: Option<&Hours>) -> Option<Timestamp> {
    let (from, amount) = (from.as_microsecond(), i64::from(span.amount));
    let at = match span.unit {
        Unit::Seconds => from.checked_add(amount * MICROS)?,
        Unit::Minutes => from.checked_add(amount * 60 * MICROS)?,
        Unit::Hours => from.checked_add(amount * 3600 * MICROS)?,
        Unit::Days => from.checked_add(amount * 86_400 * MICROS)?,
        Unit::BusinessMinutes => hours?.add_working(from, amount * 60 * MICROS)?,
        Unit::BusinessHours => hours?.add_working(from, amount * 3600 * MICROS)?,
        Unit::BusinessDays => hours?.add_days(from, span.amount)?,
    };
    Timestamp::from_microsecond(at).ok()
}

/// The instant at a share of a span, in percent: of working time where the span is in working hours, else of the
/// time on the wall, moved on to working time where the span is in working days.
pub(crate) fn share(from: Timestamp, span: Span, percent: u8, hours: Option<&Hours>) -> Option<Timestamp> {
    let part = |unit: i64| i64::from(span.amount) * unit * i64::from(percent) / 100 * MICROS;
    let at = match span.unit {
        Unit::BusinessMinutes => hours?.add_working(from.as_microsecond(), part(60))?,
        Unit::BusinessHours => hours?.add_working(from.as_microsecond(), part(3600))?,
        _ => {
            let whole = add(from, span, hours)?.as_microsecond().checked_sub(from.as_microsecond())?;
            let at = from.as_microsecond().checked_add(whole / 100 * i64::from(percent))?;
            if span.unit == Unit::BusinessDays { hours?.open_from(at)?.0 } else { at }
        }
    };
    Timestamp::from_microsecond(at).ok()
}

fn interval(text: &str) -> Option<(Time, Time)> {
    let (open, close) = text.split_once('-')?;
    let time = |text: &str| Time::strptime("%H:%M", text.trim()).ok();
    let open = time(open)?;
    // The end of a day stands for the beginning of the next one.
    let close = if close.trim() == "24:00" { Time::MAX } else { time(close)? };
    (open < close).then_some((open, close))
}
