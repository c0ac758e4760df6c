//! What an operator sets about jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_kernel::units::{self, ByteSize};
use runtime_resilience::{RetryConfig, RetryPolicy};
use serde::{Deserialize, Serialize};

use crate::limit::Limit;
use crate::pressure::Bound;

/// The section `jobs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct JobsConfig {
    /// The queues a worker serves. `default` unless told.
    pub queues: Vec<String>,
    /// Jobs a worker runs at once. 32 unless told.
    pub concurrency: u32,
    /// How many quick jobs a worker claims ahead of those it runs, at most; about a tenth of a second's work, so slow jobs
    /// are not. 0 claims only what can run at once. 4096 unless told.
    pub prefetch: u32,
    /// How often a worker looks for jobs nobody told it of. 1 s unless told.
    #[serde(with = "units::duration")]
    pub poll_interval: Duration,
    /// How long a claim holds without a heartbeat. 30 s unless told.
    #[serde(with = "units::duration")]
    pub lease: Duration,
    /// How often a worker extends its claims; at most a third of `lease`. 10 s unless told.
    #[serde(with = "units::duration")]
    pub heartbeat: Duration,
    /// How long one attempt may take unless the job says otherwise. 5 min unless told.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How long a stopping worker waits for running jobs before it gives them back. 10 s unless told.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// The largest payload, as JSON. 1 MiB unless told.
    pub max_payload: ByteSize,
    /// Delays between attempts: exponential from 1 s to 1 h with full jitter unless told. How often a job is tried is
    /// the job's own `max_attempts`.
    pub retry: RetryConfig,
    /// What holds for jobs that share a key, by kind: `limits."mail.send" = { concurrency = 2, rate = 100, per = "1m" }`.
    pub limits: BTreeMap<String, Limit>,
    /// How much queues should hold: `pressure.default = { depth = 100000, age = "5m", refuse = true }`. No bounds unless told.
    pub pressure: BTreeMap<String, Bound>,
    /// How long completed jobs are kept; `null` for ever. 24 h unless told.
    #[serde(with = "units::duration_option")]
    pub keep_completed: Option<Duration>,
    /// How long dead jobs are kept; `null` for ever. 30 days unless told.
    #[serde(with = "units::duration_option")]
    pub keep_dead: Option<Duration>,
    /// How long cancelled jobs are kept; `null` for ever. 24 h unless told.
    #[serde(with = "units::duration_option")]
    pub keep_cancelled: Option<Duration>,
    /// How much longer a job may have waited and still be overtaken by one that is one level more urgent. The same for all
    /// processes. 1 min unless told.
    #[serde(with = "units::duration")]
    pub ageing: Duration,
    /// How often expired leases are taken back. 5 s unless told.
    #[serde(with = "units::duration")]
    pub housekeeping: Duration,
}

impl Default for JobsConfig {
    fn default() -> Self {
        let day = Duration::from_hours(24);
        let mut retry = RetryConfig::default();
        retry.base_delay = Duration::from_secs(1);
        retry.max_delay = Duration::from_hours(1);
        retry.max_retry_after = Duration::from_hours(1);
        retry.max_attempts = 1000;
        Self {
            queues: vec!["default".to_owned()],
            concurrency: 32,
            prefetch: 4096,
            poll_interval: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            timeout: Duration::from_mins(5),
            drain: Duration::from_secs(10),
            max_payload: ByteSize::mib(1),
            retry,
            limits: BTreeMap::new(),
            pressure: BTreeMap::new(),
            keep_completed: Some(day),
            keep_dead: Some(day * 30),
            keep_cancelled: Some(day),
            ageing: crate::store::AGEING,
            housekeeping: Duration::from_secs(5),
        }
    }
}

impl JobsConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let durations = [
            ("poll_interval", self.poll_interval),
            ("lease", self.lease),
            ("heartbeat", self.heartbeat),
            ("timeout", self.timeout),
            ("housekeeping", self.housekeeping),
        ];
        if let Some((key, _)) = durations.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Some((key, "must be longer than zero".to_owned()));
        }
        if self.heartbeat * 3 > self.lease {
            return Some((
                "heartbeat",
                "must be at most a third of `lease`, so that one may be late".to_owned(),
            ));
        }
        if !(1..=10_000).contains(&self.concurrency) {
            return Some(("concurrency", "must be 1 to 10000".to_owned()));
        }
        if self.prefetch > 100_000 {
            return Some(("prefetch", "must be at most 100000".to_owned()));
        }
        if let Some((kind, problem)) =
            self.limits.iter().find_map(|(kind, limit)| Some((kind, limit.problem()?)))
        {
            return Some(("limits", format!("of `{kind}` {problem}")));
        }
        if let Some((queue, problem)) =
            self.pressure.iter().find_map(|(queue, bound)| Some((queue, bound.problem()?)))
        {
            return Some(("pressure", format!("of `{queue}` {problem}")));
        }
        if self.queues.is_empty() {
            return Some(("queues", "must name at least one queue".to_owned()));
        }
        RetryPolicy::new(self.retry.clone()).err().map(|error| ("retry", error.to_string()))
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for JobsConfig {
    const PATH: &'static str = "jobs";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.problem()
            .map_or(Ok(()), |(key, problem)| Err(runtime_kernel::config::Invalid::new(key, problem)))
    }
}
