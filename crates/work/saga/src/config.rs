//! What an operator sets about sagas.

use std::time::Duration;

use runtime_kernel::units::{self, ByteSize};
use runtime_resilience::{RetryConfig, RetryPolicy};
use serde::{Deserialize, Serialize};

/// The section `saga`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SagaConfig {
    /// Sagas a worker runs at once; those that wait are not counted. 64 unless told.
    pub concurrency: u32,
    /// How often a worker looks for sagas nobody told it of. 1 s unless told.
    #[serde(with = "units::duration")]
    pub poll_interval: Duration,
    /// How long a claim holds without a heartbeat. 30 s unless told.
    #[serde(with = "units::duration")]
    pub lease: Duration,
    /// How often a worker extends its claims and learns of cancellations; at most a third of `lease`. 10 s unless told.
    #[serde(with = "units::duration")]
    pub heartbeat: Duration,
    /// How long one attempt at a step or a compensation may take unless it says otherwise. 5 min unless told.
    #[serde(with = "units::duration")]
    pub step_timeout: Duration,
    /// How long a stopping worker waits for steps that run before it cuts them. 10 s unless told.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// How long a due saga of a type this worker does not know waits for one that does before it is parked. 1 min unless
    /// told.
    #[serde(with = "units::duration")]
    pub park_unregistered_after: Duration,
    /// The largest input, output, result of a step and payload of a signal, each as JSON. 256 KiB unless told.
    pub max_payload: ByteSize,
    /// The most entries of one journal; a saga that needs more is parked. 10000 unless told.
    pub max_journal: u64,
    /// The most signals one saga takes in its life. 1000 unless told.
    pub max_signals: u64,
    /// How steps are tried again unless they say otherwise: 5 attempts, exponential from 1 s to 1 min with full jitter
    /// unless told.
    pub retry: RetryConfig,
    /// How compensations are: 10 attempts, exponential from 1 s to 10 min with full jitter unless told.
    pub compensation_retry: RetryConfig,
    /// How long sagas that are over are kept; `null` for ever. 30 days unless told.
    #[serde(with = "units::duration_option")]
    pub keep: Option<Duration>,
}

impl Default for SagaConfig {
    fn default() -> Self {
        let retry = |attempts, max| {
            let mut retry = RetryConfig::default();
            retry.max_attempts = attempts;
            retry.base_delay = Duration::from_secs(1);
            retry.max_delay = max;
            retry.max_retry_after = Duration::from_hours(1);
            retry
        };
        Self {
            concurrency: 64,
            poll_interval: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            step_timeout: Duration::from_mins(5),
            drain: Duration::from_secs(10),
            park_unregistered_after: Duration::from_mins(1),
            max_payload: ByteSize::kib(256),
            max_journal: 10_000,
            max_signals: 1000,
            retry: retry(5, Duration::from_mins(1)),
            compensation_retry: retry(10, Duration::from_mins(10)),
            keep: Some(Duration::from_hours(24 * 30)),
        }
    }
}

impl SagaConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let durations = [
            ("poll_interval", self.poll_interval),
            ("lease", self.lease),
            ("heartbeat", self.heartbeat),
            ("step_timeout", self.step_timeout),
        ];
        if let Some((key, _)) = durations.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Some((key, "must be longer than zero".to_owned()));
        }
        if self.heartbeat * 3 > self.lease {
            let why = "must be at most a third of `lease`, so that one may be late";
            return Some(("heartbeat", why.to_owned()));
        }
        if !(1..=10_000).contains(&self.concurrency) {
            return Some(("concurrency", "must be 1 to 10000".to_owned()));
        }
        if self.max_payload.as_u64() == 0 {
            return Some(("max_payload", "must be more than zero".to_owned()));
        }
        if !(1..=1_000_000).contains(&self.max_journal) {
            return Some(("max_journal", "must be 1 to 1000000".to_owned()));
        }
        if self.max_signals > 1_000_000 {
            return Some(("max_signals", "must be at most 1000000".to_owned()));
        }
        let policies = [("retry", &self.retry), ("compensation_retry", &self.compensation_retry)];
        policies
            .into_iter()
            .find_map(|(key, policy)| Some((key, RetryPolicy::new(policy.clone()).err()?.to_string())))
    }

    pub(crate) fn payload_limit(&self) -> usize {
        usize::try_from(self.max_payload.as_u64()).unwrap_or(usize::MAX)
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for SagaConfig {
    const PATH: &'static str = "saga";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.problem()
            .map_or(Ok(()), |(key, problem)| Err(runtime_kernel::config::Invalid::new(key, problem)))
    }
}
