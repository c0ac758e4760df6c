//! What an operator writes to describe a retry policy, and what is wrong with it.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::budget::BudgetConfig;

/// A retry policy as configuration writes it. Every key has a default; [`crate::RetryPolicy::new`] checks the whole.
///
/// Delays and timeouts are durations with their unit (`"250ms"`, `"30s"`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How often to try at most, the first attempt included: 1 to 1000. 1 never retries. Default 3.
    pub max_attempts: u32,
    /// How the delay grows from retry to retry. Default exponential.
    pub backoff: Backoff,
    /// The delay before the first retry, before jitter. Default 500 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub base_delay: Duration,
    /// No delay is longer than this, jitter included. At most 366 days. Default 5 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_delay: Duration,
    /// What `exponential` multiplies by: 1 to 100. Default 2.
    pub factor: f64,
    /// How the delay is spread, always inside `max_delay`. Default full.
    pub jitter: Jitter,
    /// What takes the place of `base_delay` after the other side said it gets too much. Unless set, `base_delay`.
    #[serde(with = "runtime_kernel::units::duration_option", skip_serializing_if = "Option::is_none")]
    pub throttle_base_delay: Option<Duration>,
    /// How much longer than the policy's own delay a `Retry-After` may ask for. Unless set, only `max_retry_after`
    /// bounds it.
    #[serde(with = "runtime_kernel::units::duration_option", skip_serializing_if = "Option::is_none")]
    pub retry_after_slack: Option<Duration>,
    /// The longest wait a `Retry-After` of the other side may ask for; longer ones are cut to it. Default 1 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_retry_after: Duration,
    /// How long one attempt may take. No limit by default.
    #[serde(with = "runtime_kernel::units::duration_option", skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<Duration>,
    /// How long all attempts and waits together may take; the context's deadline counts in any case. No limit by
    /// default.
    #[serde(with = "runtime_kernel::units::duration_option", skip_serializing_if = "Option::is_none")]
    pub total_timeout: Option<Duration>,
    /// How many retries there may be beside the calls, over all that retry under this policy. Default a fifth of the
    /// calls of the last 10 s, and 10 per second in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetConfig>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::Exponential,
            base_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(5),
            factor: 2.0,
            jitter: Jitter::Full,
            throttle_base_delay: None,
            retry_after_slack: None,
            max_retry_after: Duration::from_mins(1),
            attempt_timeout: None,
            total_timeout: None,
            budget: Some(BudgetConfig::DEFAULT),
        }
    }
}

/// How the delay grows from retry to retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Backoff {
    /// `base_delay` each time.
    Constant,
    /// `base_delay` times the number of the attempt that failed.
    Linear,
    /// `base_delay` times `factor` to the power of the retries made before.
    #[default]
    Exponential,
    /// Between `base_delay` and three times the delay before, at random (Brooker, "Exponential Backoff And
    /// Jitter", AWS Architecture Blog 2015). It is its own jitter: `jitter` must stay `full`.
    Decorrelated,
}

/// How a delay `d` is spread so that callers which failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Jitter {
    /// Exactly `d`.
    None,
    /// Between `d/2` and `d`.
    Equal,
    /// Between 0 and `d`.
    #[default]
    Full,
}

/// Why a configuration is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {message}")]
pub struct PolicyError {
    /// The key that is wrong.
    pub key: &'static str,
    /// What it must be.
    pub message: &'static str,
}

impl Classify for PolicyError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        "retry.invalid_policy"
    }
}

runtime_kernel::into_error!(PolicyError);

impl RetryConfig {
    /// Says what is wrong, if anything.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        const YEAR: Duration = Duration::from_hours(366 * 24);
        let wrong = |key, message| Err(PolicyError { key, message });
        if !(1..=1000).contains(&self.max_attempts) {
            return wrong("max_attempts", "must be 1 to 1000");
        }
        if self.max_delay < self.base_delay {
            return wrong("max_delay", "must not be less than `base_delay`");
        }
        if self.throttle_base_delay.is_some_and(|base| base > self.max_delay) {
            return wrong("throttle_base_delay", "must not be more than `max_delay`");
        }
        if self.max_delay > YEAR {
            return wrong("max_delay", "must not be more than 366 days");
        }
        if self.max_retry_after > YEAR {
            return wrong("max_retry_after", "must not be more than 366 days");
        }
        if !(1.0..=100.0).contains(&self.factor) {
            return wrong("factor", "must be 1 to 100");
        }
        if self.backoff == Backoff::Decorrelated && self.jitter != Jitter::Full {
            return wrong("jitter", "must be `full` with decorrelated backoff, which is its own jitter");
        }
        if self.attempt_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return wrong("attempt_timeout", "must not be 0: leave it out for no limit");
        }
        if self.total_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return wrong("total_timeout", "must not be 0: leave it out for no limit");
        }
        self.budget.map_or(Ok(()), |budget| budget.check())
    }
}
