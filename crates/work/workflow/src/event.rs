//! What has happened to an instance: its audit trail, never changed and never shortened.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::step::{How, ParkReason};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counted within the instance, from 1, without gaps.
    pub number: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// Who did it; the house itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// In which step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The reason given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are named after what they hold")]
pub enum What {
    /// The instance was started.
    Started { definition: String, version: u32 },
    /// The instance ended in favour.
    Approved,
    /// The instance ended against.
    Rejected,
    /// An administrator ended the instance.
    Cancelled,
    /// Nobody decided the instance in time.
    Expired,
    /// The requester took the request back.
    Withdrawn,
    /// The clock was stopped.
    Held,
    /// The clock runs again; everything that was due is due so much later.
    Released { held_seconds: i64 },
    /// The requester is asked for changes.
    ChangesRequested,
    /// The requester answered; every step starts afresh.
    Resubmitted,
    /// A step's approvers are asked.
    StepStarted { approvers: Vec<String>, due: Option<Timestamp> },
    /// A step was approved.
    StepApproved { how: How },
    /// A step was rejected.
    StepRejected { how: How },
    /// A step was left out.
    StepSkipped { how: How },
    /// Nobody decided a step in time.
    StepExpired,
    /// The instance ended before a step was settled.
    StepCancelled,
    /// A step starts afresh.
    StepRestarted,
    /// Somebody is asked.
    TaskOpened { holder: String },
    /// Somebody agreed, for themselves or in somebody's place.
    DecisionApproved { seat: u32, on_behalf_of: Option<String> },
    /// Somebody did not.
    DecisionRejected { seat: u32, on_behalf_of: Option<String> },
    /// Somebody passed a decision on.
    Delegated { from: String, to: String },
    /// An administrator gave a decision to somebody else.
    Reassigned { from: String, to: String },
    /// An administrator asks somebody else too.
    ApproverAdded { person: String },
    /// An administrator asks somebody no longer.
    ApproverRemoved { person: String },
    /// Somebody that is asked is gone.
    ApproverDeactivated { person: String },
    /// Somebody said something.
    Commented { text: String },
    /// It will soon be due.
    SlaWarning { due: Option<Timestamp> },
    /// It is due.
    SlaBreached,
    /// Those who have not decided were reminded.
    Reminded { people: Vec<String> },
    /// An escalation told people.
    EscalationNotified { people: Vec<String> },
    /// An escalation asks others instead.
    EscalationReassigned { people: Vec<String> },
    /// An escalation asks others too.
    EscalationAdded { people: Vec<String> },
    /// An escalation settled the step.
    EscalationDecided { approved: bool },
    /// An escalation could do nothing.
    EscalationFailed { why: String },
    /// Somebody wanted the next escalation at once.
    EscalationRequested,
    /// A step cannot go on by itself.
    Parked { cause: ParkReason, message: String },
    /// It can again.
    Unparked { cause: ParkReason },
    /// Finding people failed; it is tried again.
    ResolveFailed { why: String, retry_at: Timestamp },
    /// Somebody decided a step without a seat.
    Bypassed { approved: bool },
    /// An administrator decided.
    Forced { approved: bool },
    /// An administrator left a step out.
    SkipOrdered,
    /// An administrator tries a parked step again.
    RetryOrdered,
    /// An administrator set another due time.
    DeadlineChanged { due: Timestamp },
}
