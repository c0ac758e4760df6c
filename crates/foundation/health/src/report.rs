//! What a probe is told.

use std::time::Duration;

use runtime_kernel::{Timestamp, units};
use serde::{Deserialize, Serialize};

/// How well a part, or the whole, works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Works.
    Healthy,
    /// Works, worse than it should.
    Degraded,
    /// Does not work.
    Unhealthy,
}

impl Status {
    /// The status in `snake_case`, as reports and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The answer to one probe. Made from what the last rounds found: no check runs for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The whole: unhealthy when a critical check is, degraded when any other is not healthy.
    pub status: Status,
    /// Why the whole is unhealthy, when no check is to blame: starting, stopping or stalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Each check's last result, in the order they were added. Empty for liveness.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckReport>,
}

impl Report {
    /// Whether the probe passes: 200, not 503. A degraded process passes.
    pub fn passes(&self) -> bool {
        self.status != Status::Unhealthy
    }
}

/// What is known of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The check's name.
    pub name: String,
    /// The status after thresholds; unhealthy until the first result.
    pub status: Status,
    /// Whether readiness depends on it.
    pub critical: bool,
    /// What the check last said, if anything. Errors are shown by their public message only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long the last run took.
    #[serde(with = "units::duration")]
    pub took: Duration,
    /// When the last run ended; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
}
