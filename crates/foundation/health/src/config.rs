//! How often, how long and how sure.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, units};
use serde::{Deserialize, Serialize};

/// The section `health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthConfig {
    /// Pause between two rounds. Default 10 s.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The longest a check may take unless it says otherwise. Default 5 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Failures in a row that make a working check unhealthy. Default 3.
    pub failure_threshold: u32,
    /// Successes in a row that bring an unhealthy check back. Default 1.
    pub success_threshold: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
            success_threshold: 1,
        }
    }
}

impl HealthConfig {
    /// Whether it can be run with.
    ///
    /// # Errors
    /// [`HealthError::Setting`] for anything that is zero.
    pub fn check(&self) -> Result<(), HealthError> {
        let zero = [
            ("interval", self.interval.is_zero()),
            ("timeout", self.timeout.is_zero()),
            ("failure_threshold", self.failure_threshold == 0),
            ("success_threshold", self.success_threshold == 0),
        ];
        zero.iter().find(|(_, zero)| *zero).map_or(Ok(()), |(field, _)| Err(HealthError::Setting(field)))
    }
}

/// Why a registry could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// A setting makes no sense.
    #[error("health.{0} must not be 0")]
    Setting(&'static str),
    /// Two checks have one name.
    #[error("two health checks are named `{0}`")]
    Duplicate(String),
}

impl Classify for HealthError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Setting(_) => "health.setting",
            Self::Duplicate(_) => "health.duplicate",
        }
    }
}

runtime_kernel::into_error!(HealthError);
