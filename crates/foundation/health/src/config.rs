//! Settings of a registry, and what is wrong with them.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, units};
use serde::{Deserialize, Serialize};

/// The section `health`: what holds for checks that do not say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthConfig {
    /// How long after one look the next begins. Default 10 s.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The longest one look may take. Default 5 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How many failures in a row make a check unhealthy. Default 3.
    pub failure_threshold: u32,
    /// How many successes in a row make it healthy again. Default 1.
    pub success_threshold: u32,
    /// Whether probes show each check, or the status alone. Default `false`. Read by what serves the probes.
    pub show_details: bool,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
            success_threshold: 1,
            show_details: false,
        }
    }
}

/// Why a registry was not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// Two checks have one name.
    #[error("the health check `{0}` is registered twice")]
    Duplicate(String),
    /// A time or threshold is 0, or the name empty.
    #[error("the health check `{check}`: {message}")]
    Setting {
        /// Which; `*` for what holds for all.
        check: String,
        /// What is wrong.
        message: &'static str,
    },
    /// The gauge could not be registered.
    #[error("health metrics: {0}")]
    Metrics(String),
}

impl Classify for HealthError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Duplicate(_) => "health.duplicate",
            Self::Setting { .. } => "health.setting",
            Self::Metrics(_) => "health.metrics",
        }
    }
}

runtime_kernel::into_error!(HealthError);
