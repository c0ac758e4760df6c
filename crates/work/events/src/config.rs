//! What an operator sets about events.

use std::time::Duration;

use runtime_kernel::units;
use runtime_resilience::{RetryConfig, RetryPolicy};
use serde::{Deserialize, Serialize};

use crate::error::EventsError;

/// The section `events`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EventsConfig {
    /// Events a consumer claims at once. 64 unless told.
    pub batch: u32,
    /// Keys of a claim worked on at once. 16 unless told.
    pub concurrency: u32,
    /// How long a claim holds without being renewed; it is renewed three times in that time. 30 s unless told.
    #[serde(with = "units::duration")]
    pub lease: Duration,
    /// How often a consumer looks for events nobody told it of. 1 s unless told.
    #[serde(with = "units::duration")]
    pub poll_interval: Duration,
    /// How long one attempt at an event may take. 30 s unless told.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How long a stopping consumer waits for what it has begun. 10 s unless told.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// Delays between attempts, and how many there are: five, exponential from 1 s to 5 min with full jitter, unless told.
    pub retry: RetryConfig,
    /// How long events that every subscription has done with are kept; `null` for ever. 7 days unless told.
    #[serde(with = "units::duration_option")]
    pub keep: Option<Duration>,
    /// How often the lag of subscriptions is measured and, where no schedule does so, old events are forgotten. 1 min unless
    /// told.
    #[serde(with = "units::duration")]
    pub housekeeping: Duration,
    /// Events a topic of the bus remembers. 1024 unless told.
    pub bus_capacity: u32,
}

impl Default for EventsConfig {
    fn default() -> Self {
        let mut retry = RetryConfig::default();
        retry.base_delay = Duration::from_secs(1);
        retry.max_delay = Duration::from_mins(5);
        retry.max_retry_after = Duration::from_mins(5);
        retry.max_attempts = 5;
        Self {
            batch: 64,
            concurrency: 16,
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            retry,
            keep: Some(Duration::from_hours(24 * 7)),
            housekeeping: Duration::from_mins(1),
            bus_capacity: 1024,
        }
    }
}

impl EventsConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let durations = [
            ("lease", self.lease),
            ("poll_interval", self.poll_interval),
            ("timeout", self.timeout),
            ("housekeeping", self.housekeeping),
        ];
        if let Some((key, _)) = durations.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Some((key, "must be longer than zero".to_owned()));
        }
        let counts = [
            ("batch", self.batch, 10_000),
            ("concurrency", self.concurrency, 10_000),
            ("bus_capacity", self.bus_capacity, 1 << 24),
        ];
        if let Some((key, _, most)) = counts.into_iter().find(|(_, count, most)| !(1..=*most).contains(count))
        {
            return Some((key, format!("must be 1 to {most}")));
        }
        RetryPolicy::new(self.retry.clone()).err().map(|error| ("retry", error.to_string()))
    }

    /// The policy of `retry`.
    pub(crate) fn policy(&self) -> Result<RetryPolicy, EventsError> {
        if let Some((key, problem)) = self.problem() {
            return Err(EventsError::config(format!("events.{key}"), problem));
        }
        RetryPolicy::new(self.retry.clone())
            .map_err(|error| EventsError::config("events.retry", error.to_string()))
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for EventsConfig {
    const PATH: &'static str = "events";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.problem()
            .map_or(Ok(()), |(key, problem)| Err(runtime_kernel::config::Invalid::new(key, problem)))
    }
}
