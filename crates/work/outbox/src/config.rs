//! What an operator sets about the outbox and the inbox.

use std::time::Duration;

use runtime_kernel::units::{self, ByteSize};
use runtime_resilience::{RetryConfig, RetryPolicy};
use serde::{Deserialize, Serialize};

use crate::error::OutboxError;

/// What later messages of a key do once one has been parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnParked {
    /// They are sent: the parked one is missing from the order.
    #[default]
    Continue,
    /// They wait until the parked one is redriven or discarded.
    Hold,
}

/// The section `outbox`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxConfig {
    /// Messages claimed and published at once. 100 unless told.
    pub batch: u32,
    /// How long a claim holds without being renewed; it is renewed three times in that time. 30 s unless told.
    #[serde(with = "units::duration")]
    pub lease: Duration,
    /// How soon a relay looks again after it found nothing; doubled each time up to `max_poll_interval`. 200 ms unless told.
    #[serde(with = "units::duration")]
    pub poll_interval: Duration,
    /// How long a relay that was told of nothing waits at most. 5 s unless told.
    #[serde(with = "units::duration")]
    pub max_poll_interval: Duration,
    /// How long the sink may take for one call. 30 s unless told.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How long a stopping relay waits for what it has begun. 10 s unless told.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// Delays between attempts, and how many count before a message is parked: five, exponential from 1 s to 1 min with
    /// full jitter, unless told.
    pub retry: RetryConfig,
    /// What later messages of a key do once one has been parked. They continue unless told.
    pub on_parked: OnParked,
    /// The largest message, as JSON. 1 MiB unless told.
    pub max_message: ByteSize,
    /// How long sent messages are kept; zero deletes them when they are sent. 1 day unless told.
    #[serde(with = "units::duration")]
    pub keep_sent: Duration,
    /// How long the inbox remembers; what comes again later is taken for new. 30 days unless told.
    #[serde(with = "units::duration")]
    pub keep_seen: Duration,
    /// How often the lag is measured and, where no schedule does so, old rows are forgotten. 15 s unless told.
    #[serde(with = "units::duration")]
    pub housekeeping: Duration,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        let mut retry = RetryConfig::default();
        retry.base_delay = Duration::from_secs(1);
        retry.max_delay = Duration::from_mins(1);
        retry.max_retry_after = Duration::from_mins(1);
        retry.max_attempts = 5;
        Self {
            batch: 100,
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_millis(200),
            max_poll_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            retry,
            on_parked: OnParked::Continue,
            max_message: ByteSize::mib(1),
            keep_sent: Duration::from_hours(24),
            keep_seen: Duration::from_hours(24 * 30),
            housekeeping: Duration::from_secs(15),
        }
    }
}

impl OutboxConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let durations = [
            ("lease", self.lease),
            ("poll_interval", self.poll_interval),
            ("timeout", self.timeout),
            ("keep_seen", self.keep_seen),
            ("housekeeping", self.housekeeping),
        ];
        if let Some((key, _)) = durations.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Some((key, "must be longer than zero".to_owned()));
        }
        if self.max_poll_interval < self.poll_interval {
            return Some(("max_poll_interval", "must not be shorter than `poll_interval`".to_owned()));
        }
        if !(1..=10_000).contains(&self.batch) {
            return Some(("batch", "must be 1 to 10000".to_owned()));
        }
        RetryPolicy::new(self.retry.clone()).err().map(|error| ("retry", error.to_string()))
    }

    /// The policy of `retry`, once everything is found to be usable.
    pub(crate) fn policy(&self) -> Result<RetryPolicy, OutboxError> {
        if let Some((key, problem)) = self.problem() {
            return Err(OutboxError::invalid(format!("outbox.{key}"), problem));
        }
        RetryPolicy::new(self.retry.clone())
            .map_err(|error| OutboxError::invalid("outbox.retry", error.to_string()))
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for OutboxConfig {
    const PATH: &'static str = "outbox";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.problem()
            .map_or(Ok(()), |(key, problem)| Err(runtime_kernel::config::Invalid::new(key, problem)))
    }
}
