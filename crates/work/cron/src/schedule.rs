//! A schedule: when something happens, what, and what is done when things go wrong.

use std::time::Duration;

use runtime_kernel::units;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::calendar::Calendar;
use crate::error::CronError;
use crate::expression::{CronExpression, Dialect};
use crate::timetable::{Times, Timetable};
use crate::zone::Zone;

/// The longest name of a schedule or an action, in bytes.
const MAX_NAME: usize = 200;

/// The largest payload, as JSON, in bytes.
const MAX_PAYLOAD: usize = 1 << 18;

/// The most ticks that are made up for, or wait, at once.
const MAX_TICKS: u32 = 1_000;

/// What becomes of fire times nobody was there for, once they are older than `misfire_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// They are left out.
    Skip,
    /// One tick makes up for all: the latest of them, or the one that is on time.
    #[default]
    Once,
    /// Each is made up for, the oldest first; of more than so many the latest.
    All {
        /// At most so many; up to 1,000.
        up_to: u32,
    },
}

/// What becomes of a tick while an earlier one of the same schedule has not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    Allow,
    /// It is left out, and the history says so.
    #[default]
    Skip,
    /// It runs when the earlier ones have ended. When so many wait already, it is left out.
    Wait {
        /// At most so many; up to 1,000.
        up_to: u32,
    },
}

/// When something happens, what, and what is done when things go wrong.
///
/// ```
/// use runtime_cron::{Calendar, Misfire, Schedule};
///
/// let report = Schedule::new("report", "30 7 * * MON-FRI", "send-report")
///     .zone("Europe/Berlin")
///     .calendar(Calendar::default().without("12-25"))
///     .misfire(Misfire::Skip);
/// let from = "2026-12-24T12:00:00Z".parse()?;
/// let next = report.timetable("")?.next_after(from);
/// assert_eq!(next, Some("2026-12-28T06:30:00Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Schedule {
    /// Its name, unique within the tenant. Also what `H` is hashed from.
    pub name: String,
    /// A cron expression, a nickname, or `@every 90s` (multiples since 1970).
    pub when: String,
    /// Which registered action fires. `job` unless told.
    #[serde(default = "job")]
    pub action: String,
    /// What the action gets.
    #[serde(default)]
    pub payload: Value,
    /// Whose local time `when` is. `UTC` unless told.
    #[serde(default = "utc")]
    pub zone: String,
    /// How `when` is read, and what happens when clocks change.
    #[serde(default)]
    pub dialect: Dialect,
    /// Days that are left out.
    #[serde(default, skip_serializing_if = "Calendar::is_empty")]
    pub calendar: Calendar,
    /// Calendars of the configuration, by name: what they leave out is left out too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calendars: Vec<String>,
    /// What `calendars` left out when they were looked up last: when the schedule was kept, or a scheduler started. What is
    /// written here is replaced.
    #[serde(default, skip_serializing_if = "Calendar::is_empty")]
    pub named: Calendar,
    /// Each tick waits up to so long, by a hash of name and fire time. Not at all unless told; at most a day.
    #[serde(default, with = "units::duration")]
    pub jitter: Duration,
    /// Fire times nobody was there for. One tick for all unless told.
    #[serde(default)]
    pub misfire: Misfire,
    /// From when on a fire time counts as one nobody was there for. 60 s unless told; at most an hour.
    #[serde(default = "minute", with = "units::duration")]
    pub misfire_after: Duration,
    /// Ticks that come while an earlier one runs. Left out unless told.
    #[serde(default)]
    pub overlap: Overlap,
    /// How often a tick is tried at most, the first time included. 3 unless told; 1 is at most once.
    #[serde(default = "three")]
    pub attempts: u32,
    /// How long after the first failure it is tried again; doubles each time, up to an hour. 5 s unless told.
    #[serde(default = "five_seconds", with = "units::duration")]
    pub retry_delay: Duration,
    /// How long one attempt may take. 5 min unless told.
    #[serde(default = "five_minutes", with = "units::duration")]
    pub timeout: Duration,
    /// How many finished ticks its history keeps. 100 unless told; up to 10,000.
    #[serde(default = "hundred")]
    pub keep: u32,
}

fn utc() -> String {
    "UTC".to_owned()
}
fn job() -> String {
    "job".to_owned()
}
const fn minute() -> Duration {
    Duration::from_mins(1)
}
const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}
const fn five_minutes() -> Duration {
    Duration::from_mins(5)
}
const fn three() -> u32 {
    3
}
const fn hundred() -> u32 {
    100
}

impl Schedule {
    /// A schedule with the defaults, in UTC.
    pub fn new(name: impl Into<String>, when: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            when: when.into(),
            action: action.into(),
            payload: Value::Null,
            zone: utc(),
            dialect: Dialect::OCPS,
            calendar: Calendar::default(),
            calendars: Vec::new(),
            named: Calendar::default(),
            jitter: Duration::ZERO,
            misfire: Misfire::default(),
            misfire_after: minute(),
            overlap: Overlap::default(),
            attempts: three(),
            retry_delay: five_seconds(),
            timeout: five_minutes(),
            keep: hundred(),
        }
    }

    /// What the action gets.
    #[must_use]
    pub fn payload(mut self, payload: Value) -> Self {
        self.payload = payload;
        self
    }

    /// Whose local time it is.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// How `when` is read.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Days that are left out.
    #[must_use]
    pub fn calendar(mut self, calendar: Calendar) -> Self {
        self.calendar = calendar;
        self
    }

    /// Lets each tick wait up to so long.
    #[must_use]
    pub fn jitter(mut self, most: Duration) -> Self {
        self.jitter = most;
        self
    }

    /// Fire times nobody was there for.
    #[must_use]
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.misfire = misfire;
        self
    }

    /// Ticks that come while an earlier one runs.
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// How often a tick is tried at most.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Reads its times. `tenant` is the tenant's namespace, empty without one: two tenants' `H` differ.
    ///
    /// # Errors
    /// Names the part that cannot be used.
    pub fn timetable(&self, tenant: &str) -> Result<Timetable, CronError> {
        let schedule = || self.name.chars().take(MAX_NAME).collect::<String>();
        let invalid = |key, problem: String| CronError::Invalid { schedule: schedule(), key, problem };
        let zone = Zone::get(&self.zone).map_err(|error| CronError::Zone { schedule: schedule(), error })?;
        let mut calendar = self.calendar.clone();
        calendar.merge(&self.named);
        let off = calendar.read().map_err(|problem| invalid("calendar", problem))?;
        let times = if let Some(times) = Times::interval(&self.when) {
            times.map_err(|problem| invalid("when", problem))?
        } else {
            let name = format!("{tenant}/{}", self.name);
            let expression = CronExpression::parse_with(&self.when, self.dialect, Some(&name));
            Times::Cron(expression.map_err(|error| CronError::Expression { schedule: schedule(), error })?)
        };
        Ok(Timetable { times, zone, off })
    }

    /// Checks everything a store is to keep.
    ///
    /// # Errors
    /// Names the part that cannot be used.
    pub fn check(&self, tenant: &str) -> Result<Timetable, CronError> {
        let schedule = || self.name.chars().take(MAX_NAME).collect::<String>();
        let refuse = |key, problem: &str| {
            Err(CronError::Invalid { schedule: schedule(), key, problem: problem.to_owned() })
        };
        for (key, name) in [("name", &self.name), ("action", &self.action)] {
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return refuse(key, "must be 1 to 200 bytes without control characters");
            }
        }
        let ticks = 1..=MAX_TICKS;
        if matches!(self.misfire, Misfire::All { up_to } if !ticks.contains(&up_to)) {
            return refuse("misfire", "must make up for 1 to 1000 ticks");
        }
        if matches!(self.overlap, Overlap::Wait { up_to } if !ticks.contains(&up_to)) {
            return refuse("overlap", "must let 1 to 1000 ticks wait");
        }
        if self.jitter > Duration::from_hours(24) {
            return refuse("jitter", "must be at most a day");
        }
        let grace = Duration::from_secs(1)..=Duration::from_hours(1);
        if !grace.contains(&self.misfire_after) {
            return refuse("misfire_after", "must be 1s to 1h");
        }
        if !(1..=100).contains(&self.attempts) {
            return refuse("attempts", "must be 1 to 100");
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_hours(24) {
            return refuse("timeout", "must be longer than zero and at most a day");
        }
        if self.retry_delay > Duration::from_hours(1) {
            return refuse("retry_delay", "must be at most an hour");
        }
        if !(1..=10_000).contains(&self.keep) {
            return refuse("keep", "must be 1 to 10000");
        }
        if self.payload.to_string().len() > MAX_PAYLOAD {
            return refuse("payload", "must have at most 256 KiB as JSON");
        }
        self.timetable(tenant)
    }

    /// How long after attempt number `attempt` failed the next one begins.
    pub(crate) fn delay_after(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1).min(20)).unwrap_or(u32::MAX);
        self.retry_delay.saturating_mul(factor).min(Duration::from_hours(1))
    }
}
