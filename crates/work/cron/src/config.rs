//! What an operator sets about schedules.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_kernel::units;
use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;
use crate::error::CronError;
use crate::schedule::Schedule;

/// The section `cron`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CronConfig {
    /// How often a scheduler looks for what nobody told it of, and whether it may lead. 1 s unless told.
    #[serde(with = "units::duration")]
    pub poll_interval: Duration,
    /// How long the leader leads, and a claim holds, without being heard from. 15 s unless told; at least three times
    /// `poll_interval`.
    #[serde(with = "units::duration")]
    pub lease: Duration,
    /// Ticks a scheduler runs at once. 64 unless told.
    pub concurrency: u32,
    /// How long a stopping scheduler waits for running ticks. 10 s unless told.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// The most schedules of one tenant. 10,000 unless told.
    pub max_schedules: u32,
    /// Calendars, by the name schedules have for them.
    pub calendars: BTreeMap<String, Calendar>,
    /// Schedules of the service itself.
    pub schedules: Vec<Schedule>,
}

impl Default for CronConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            lease: Duration::from_secs(15),
            concurrency: 64,
            drain: Duration::from_secs(10),
            max_schedules: 10_000,
            calendars: BTreeMap::new(),
            schedules: Vec::new(),
        }
    }
}

impl CronConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(String, String)> {
        let wrong = |key: &str, problem: &str| Some((key.to_owned(), problem.to_owned()));
        if self.poll_interval.is_zero() {
            return wrong("poll_interval", "must be longer than zero");
        }
        if self.lease < self.poll_interval * 3 {
            return wrong(
                "lease",
                "must be at least three times `poll_interval`, so that one look may be late",
            );
        }
        if !(1..=10_000).contains(&self.concurrency) {
            return wrong("concurrency", "must be 1 to 10000");
        }
        for (name, calendar) in &self.calendars {
            if let Err(problem) = calendar.read() {
                return Some((format!("calendars.{name}"), problem));
            }
        }
        let mut names = std::collections::BTreeSet::new();
        for (index, schedule) in self.schedules.iter().enumerate() {
            let key = format!("schedules[{index}]");
            if !names.insert(&schedule.name) {
                return Some((key, format!("there are two schedules named `{}`", schedule.name)));
            }
            let checked = self.resolve(schedule.clone()).and_then(|schedule| schedule.check(""));
            if let Err(error) = checked {
                return Some((key, error.to_string()));
            }
        }
        None
    }

    /// The schedule with what its named calendars leave out now.
    pub(crate) fn resolve(&self, mut schedule: Schedule) -> Result<Schedule, CronError> {
        schedule.named = Calendar::default();
        for name in &schedule.calendars {
            let Some(calendar) = self.calendars.get(name) else {
                let problem = format!("names no calendar `{name}` of the configuration");
                return Err(CronError::Invalid { schedule: schedule.name, key: "calendars", problem });
            };
            schedule.named.merge(calendar);
        }
        Ok(schedule)
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for CronConfig {
    const PATH: &'static str = "cron";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.problem()
            .map_or(Ok(()), |(key, problem)| Err(runtime_kernel::config::Invalid::new(key, problem)))
    }
}
