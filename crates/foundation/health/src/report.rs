//! What a probe answers.

use std::borrow::Cow;

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How something is. Ordered from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, worse than it should.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl Status {
    /// The status in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The answer to one probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The worst of what counts: a critical check as it is, an optional one never worse than degraded.
    pub status: Status,
    /// Why the process itself says no, whatever its checks say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// Features that are switched off meanwhile: `disable_when_degraded`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// Each check, in the order of registration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckReport>,
}

impl Report {
    /// Whether the probe passes: degraded does.
    pub fn is_passing(&self) -> bool {
        self.status != Status::Unhealthy
    }

    /// What a probe over HTTP answers: 200 or 503.
    pub fn http_status(&self) -> u16 {
        if self.is_passing() { 200 } else { 503 }
    }

    /// The status alone, for callers who may not know what the process depends on.
    #[must_use]
    pub fn summary(&self) -> Self {
        Self { status: self.status, reason: None, disabled: Vec::new(), checks: Vec::new() }
    }
}

/// One check's standing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Its name.
    pub name: Cow<'static, str>,
    /// How it stands, thresholds applied.
    pub status: Status,
    /// Whether it can fail the whole.
    pub critical: bool,
    /// What the last look said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'static, str>>,
    /// The last look's figures.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
    /// When the last look ended; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How many looks in a row have failed.
    pub consecutive_failures: u32,
}
