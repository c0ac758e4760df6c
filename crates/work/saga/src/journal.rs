//! What has happened to a saga: entries that are appended and never changed.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::instance::{Asked, Failure};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the journal, from 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Where in the saga: `3` is its fourth operation, `3.1.0` the first one in the second branch of a join there.
    /// Empty for what concerns the saga as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub position: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// A step is done.
    StepDone {
        /// The step.
        name: String,
        /// What it returned.
        result: Value,
        /// What undoes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compensation: Option<String>,
    },
    /// An attempt at a step failed; there will be another.
    StepFailed {
        /// The step.
        name: String,
        /// Which attempt, from 1.
        attempt: u32,
        /// How.
        failure: Failure,
        /// When the next is due.
        retry_at: Timestamp,
    },
    /// A step failed for good.
    StepGaveUp {
        /// The step.
        name: String,
        /// Attempts made.
        attempt: u32,
        /// How it failed last.
        failure: Failure,
        /// What undoes it, when it is to be undone even so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compensation: Option<String>,
    },
    /// A timer runs.
    TimerSet {
        /// The timer.
        name: String,
        /// Until when.
        until: Timestamp,
    },
    /// A signal is waited for, for so long.
    SignalAwaited {
        /// The signal.
        name: String,
        /// At the latest until.
        until: Timestamp,
    },
    /// A signal was consumed.
    SignalReceived {
        /// The signal.
        name: String,
        /// Its number among the saga's signals.
        signal: u64,
        /// What it brought.
        payload: Value,
    },
    /// No signal came in time.
    SignalTimedOut {
        /// The signal.
        name: String,
    },
    /// From here on steps are undone.
    Compensating {
        /// Why.
        failure: Failure,
    },
    /// A step is undone.
    Compensated {
        /// The compensation.
        name: String,
    },
    /// An attempt at a compensation failed.
    CompensationFailed {
        /// The compensation.
        name: String,
        /// Which attempt, from 1; from 1 again after an operator's retry.
        attempt: u32,
        /// How.
        failure: Failure,
        /// When the next is due; none when it failed for good.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    },
    /// An operator set a parked saga going again.
    Retried {
        /// Who and why.
        asked: Asked,
    },
    /// An operator says that a compensation has been seen to, or, at no position, that the whole saga has.
    Resolved {
        /// Who and why.
        asked: Asked,
    },
}

impl What {
    /// It is about undoing, not about going on.
    pub(crate) const fn undoes(&self) -> bool {
        matches!(
            self,
            Self::Compensating { .. }
                | Self::Compensated { .. }
                | Self::CompensationFailed { .. }
                | Self::Retried { .. }
                | Self::Resolved { .. }
        )
    }
}
