//! How many jobs of one key may run at once, and how often one may begin.

use std::time::Duration;

use runtime_kernel::units;
use serde::{Deserialize, Serialize};

/// What holds for the jobs of one kind, in one queue, that share a [key](crate::NewJob::key): exact over all processes,
/// because it is counted where the jobs are claimed.
///
/// Without one, jobs that share a key run one after another in the order they became due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limit {
    /// So many may run at once; any number when absent.
    pub concurrency: Option<u32>,
    /// So many may begin within `per`: all at once after a pause, then one each `per / rate`. Any number when absent.
    pub rate: Option<u32>,
    /// The period of `rate`. 1 s unless told.
    #[serde(with = "units::duration")]
    pub per: Duration,
}

impl Default for Limit {
    fn default() -> Self {
        Self { concurrency: None, rate: None, per: Duration::from_secs(1) }
    }
}

impl Limit {
    /// One after another.
    pub const ONE: Self = Self { concurrency: Some(1), rate: None, per: Duration::from_secs(1) };

    /// So many at once.
    #[must_use]
    pub fn concurrency(count: u32) -> Self {
        Self { concurrency: Some(count), ..Self::default() }
    }

    /// So many within a period.
    #[must_use]
    pub fn rate(count: u32, per: Duration) -> Self {
        Self { rate: Some(count), per, ..Self::default() }
    }

    /// And at most so many at once.
    #[must_use]
    pub fn and_concurrency(self, count: u32) -> Self {
        Self { concurrency: Some(count), ..self }
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.concurrency == Some(0) || self.rate == Some(0) {
            return Some("must let at least one job run: pause the kind instead");
        }
        (self.rate.is_some() && self.pace().interval <= 0)
            .then_some("must have a period of at least 1 µs per job")
    }

    /// GCRA's two numbers, in microseconds: a job begins when the theoretical arrival time is at most `tolerance` ahead,
    /// and moves it by `interval` (ATM Forum, Traffic Management 4.1, Appendix I).
    pub(crate) fn pace(&self) -> Pace {
        let Some(rate) = self.rate else { return Pace { interval: 0, tolerance: 0 } };
        let per = i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let interval = per / i64::from(rate.max(1));
        Pace { interval, tolerance: per - interval }
    }
}

/// How often jobs of a key may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval: i64,
    pub(crate) tolerance: i64,
}

impl Pace {
    /// From when on the next may begin.
    pub(crate) fn opens(self, tat: i64) -> i64 {
        tat.saturating_sub(self.tolerance)
    }

    /// The theoretical arrival time after one began.
    pub(crate) fn begun(self, tat: i64, now: i64) -> i64 {
        tat.max(now).saturating_add(self.interval)
    }
}
