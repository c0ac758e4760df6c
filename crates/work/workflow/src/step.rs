//! One step of a run: its seats, where it stands and why it cannot go on.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a step stands. The last five are ends, of which the first two let the next steps start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// It waits for other steps.
    Pending,
    /// Its approvers are being found.
    Seating,
    /// Its approvers are asked.
    Active,
    /// Enough agreed, or it was approved otherwise.
    Approved,
    /// It did not apply, or an administrator left it out.
    Skipped,
    /// Enough can no longer agree, or it was rejected otherwise.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// The instance ended without it.
    Cancelled,
}

impl StepStatus {
    /// Whether it lets the next steps start.
    pub const fn is_passed(self) -> bool {
        matches!(self, Self::Approved | Self::Skipped)
    }

    /// Whether people are, or are about to be, asked.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Seating | Self::Active)
    }
}

/// By what a step was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Its approvers.
    Requirement,
    /// A condition of the definition.
    Condition,
    /// An escalation.
    Escalation,
    /// Somebody with the grant to bypass.
    Bypass,
    /// An administrator.
    Admin,
    /// Time.
    Expiry,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// The step's id.
    pub id: String,
    /// Where it stands.
    pub status: StepStatus,
    /// Who is, or was, asked.
    pub seats: Vec<Seat>,
    /// By what it was settled.
    pub settled: Option<How>,
    /// Why it cannot go on by itself.
    pub parked: Option<Parked>,
    /// When its approvers were asked.
    pub started_at: Option<Timestamp>,
    /// When it begins to be late.
    pub warn_at: Option<Timestamp>,
    /// By when it should be decided.
    pub due_at: Option<Timestamp>,
    /// When it was settled.
    pub ended_at: Option<Timestamp>,
}

impl StepRun {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            status: StepStatus::Pending,
            seats: Vec::new(),
            settled: None,
            parked: None,
            started_at: None,
            warn_at: None,
            due_at: None,
            ended_at: None,
        }
    }

    /// Seats that count.
    pub fn live(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| seat.state != SeatState::Removed)
    }
}

/// One voice in a step. Its holder may change; the voice stays one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seat {
    /// Counted within the step, from 1.
    pub number: u32,
    /// Who decides.
    pub holder: String,
    /// Who was asked first.
    pub first: String,
    /// Where it stands.
    pub state: SeatState,
    /// How many times it was delegated.
    pub hops: u8,
    /// Whether an escalation brought it.
    pub escalated: bool,
    /// Whether its holder is gone.
    pub vacant: bool,
    /// When its holder was asked.
    pub opened_at: Option<Timestamp>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
}

/// Where a seat stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeatState {
    /// Others are asked first.
    Waiting,
    /// Its holder is asked.
    Open,
    /// Its holder agreed.
    Approved,
    /// Its holder did not.
    Rejected,
    /// It no longer counts.
    Removed,
    /// The step was settled without it.
    Closed,
}

impl SeatState {
    /// Whether its holder may still decide.
    pub const fn is_undecided(self) -> bool {
        matches!(self, Self::Waiting | Self::Open)
    }
}

/// Why a step cannot go on by itself; an administrator can mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The reason.
    pub reason: ParkReason,
    /// In words.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// Reasons a step cannot go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkReason {
    /// Nobody may decide it.
    MissingApprover,
    /// A group or role has no members.
    GroupEmpty,
    /// A role, group, field or relation is unknown.
    RoleMismatch,
    /// More people than a step can ask.
    TooManyApprovers,
    /// Somebody asked is gone.
    DeactivatedUser,
    /// Fewer people than must agree.
    QuorumUnreachable,
    /// A condition cannot be answered.
    ConditionError,
    /// An escalation found nobody.
    EscalationFailed,
    /// Whoever knows the people did not answer, several times.
    SystemError,
}
