//! The `shutdown` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Invalid, Section};

/// How long the way down may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ShutdownConfig {
    /// The budget of all hooks together, the drain delay not counted. Default 15 s.
    #[serde(with = "crate::units::duration")]
    pub timeout: Duration,
    /// How long the process still serves after readiness turned false, so that load balancers notice.
    /// Default 0 s; behind Kubernetes about twice the readiness probe's period.
    #[serde(with = "crate::units::duration")]
    pub drain_delay: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(15), drain_delay: Duration::ZERO }
    }
}

impl ShutdownConfig {
    /// With this budget.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With this drain delay.
    #[must_use]
    pub const fn with_drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }
}

impl Section for ShutdownConfig {
    const PATH: &'static str = "shutdown";

    fn validate(&self) -> Result<(), Invalid> {
        // An hour is far beyond any orchestrator's patience and far below what a clock can add.
        let longest = Duration::from_hours(1);
        if self.timeout.is_zero() || self.timeout > longest {
            return Err(Invalid::new("timeout", "must be more than 0s and at most 1h"));
        }
        if self.drain_delay > longest {
            return Err(Invalid::new("drain_delay", "must be at most 1h"));
        }
        Ok(())
    }
}
