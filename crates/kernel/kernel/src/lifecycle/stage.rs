//! The stages of a shutdown, in the order in which they run.

use std::fmt;

use serde::Serialize;

/// One step on the way down. Stages run in this order; a stage begins when the hooks of the one before are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Readiness turns false; everything still works.
    Unready,
    /// The drain delay passes, so that load balancers notice; then what announces the departure runs.
    Drain,
    /// No new work is accepted and what is in flight is finished.
    Intake,
    /// Workers stop and give their leases back.
    Work,
    /// What is buffered is written: outbox, audit, telemetry.
    Flush,
    /// Pools and files are closed; the container is disposed last.
    Close,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] =
        [Self::Unready, Self::Drain, Self::Intake, Self::Work, Self::Flush, Self::Close];

    /// The name in logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unready => "unready",
            Self::Drain => "drain",
            Self::Intake => "intake",
            Self::Work => "work",
            Self::Flush => "flush",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
