//! A running workflow: everything there is to know about it, and nothing that only memory knows.

use runtime_kernel::{Carried, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

runtime_kernel::id!(InstanceId, "One run of a workflow about one entity.");

/// How much a request matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

/// Where an instance stands. The last five are ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has been asked yet.
    Pending,
    /// Somebody is asked.
    InProgress,
    /// The clock is stopped.
    OnHold,
    /// The requester is asked to change the entity; the clock is stopped.
    ChangesRequested,
    /// Every step is settled in favour.
    Approved,
    /// A step said no.
    Rejected,
    /// An administrator ended it.
    Cancelled,
    /// Nobody decided in time.
    Expired,
    /// The requester took it back.
    Withdrawn,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::InProgress,
        Self::OnHold,
        Self::ChangesRequested,
        Self::Approved,
        Self::Rejected,
        Self::Cancelled,
        Self::Expired,
        Self::Withdrawn,
    ];

    /// Whether nothing can happen any more.
    pub const fn is_end(self) -> bool {
        matches!(
            self,
            Self::Approved | Self::Rejected | Self::Cancelled | Self::Expired | Self::Withdrawn
        )
    }

    /// Whether the clock is stopped.
    pub const fn is_stopped(self) -> bool {
        matches!(self, Self::OnHold | Self::ChangesRequested)
    }

    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::OnHold => "on_hold",
            Self::ChangesRequested => "changes_requested",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

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

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// Whose: the tenant's namespace.
    pub tenant: String,
    /// Grows by one with every change; what is stored under an older one is refused.
    pub revision: u64,
    /// The definition's code.
    pub definition: String,
    /// The definition's version, frozen with the instance.
    pub version: u32,
    /// The type of the entity.
    pub entity_type: String,
    /// Which entity.
    pub entity_id: String,
    /// The entity's data as it was when it was submitted: what conditions read.
    pub entity: Value,
    /// What else the starter wanted to be remembered. No condition reads it.
    pub metadata: Value,
    /// Who asks.
    pub requester: String,
    /// How much it matters.
    pub priority: Priority,
    /// Where it stands.
    pub status: Status,
    /// Its steps, in the definition's order.
    pub steps: Vec<StepRun>,
    /// What happens by itself, and when.
    pub timers: Vec<Timer>,
    /// Who has to be found.
    pub wants: Vec<Want>,
    /// Why the clock is stopped.
    pub held: Option<Held>,
    /// How many events it has had.
    pub events: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// By when the whole should be decided.
    pub due_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The trace and tenant it was started under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Carried>,
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

/// A stopped clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when.
    pub since: Timestamp,
    /// By whom.
    pub by: String,
}

/// Something that happens by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Of which step; of the whole when absent.
    pub step: Option<String>,
    /// What.
    pub kind: TimerKind,
    /// When.
    pub at: Timestamp,
    /// How many times more after that.
    pub left: u32,
}

/// What happens by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// It will soon be due.
    Warning,
    /// It is due.
    Due,
    /// A reminder, by its place in the SLA.
    Reminder(usize),
    /// An escalation, by its place in the SLA.
    Escalation(usize),
    /// It is over.
    Expiry,
}

/// People that have to be found before something can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// For which step; for the whole when absent.
    pub step: Option<String>,
    /// For what.
    pub purpose: Purpose,
    /// How often that has failed.
    pub failed: u32,
    /// Not before.
    pub at: Timestamp,
}

/// What people are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To decide.
    Seats,
    /// For an escalation, by its place in the SLA.
    Escalation(usize),
}

impl Instance {
    /// The step of an id.
    pub fn step(&self, id: &str) -> Option<&StepRun> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// When something happens by itself next.
    pub fn next_at(&self) -> Option<Timestamp> {
        if self.status.is_end() || self.status.is_stopped() {
            return None;
        }
        self.timers.iter().map(|timer| timer.at).chain(self.wants.iter().map(|want| want.at)).min()
    }

    /// Whether a step cannot go on by itself.
    pub fn is_parked(&self) -> bool {
        !self.status.is_end() && self.steps.iter().any(|step| step.parked.is_some())
    }

    /// Who is asked now: one task per open seat; none while the clock is stopped.
    pub fn tasks(&self) -> Vec<Task> {
        if self.status != Status::InProgress {
            return Vec::new();
        }
        let active = self.steps.iter().filter(|step| step.status == StepStatus::Active);
        let open = |step: &StepRun| {
            let open = step.seats.iter().filter(|seat| seat.state == SeatState::Open);
            open.map(|seat| self.task(step, seat)).collect::<Vec<_>>()
        };
        active.flat_map(open).collect()
    }

    fn task(&self, step: &StepRun, seat: &Seat) -> Task {
        Task {
            instance: self.id,
            step: step.id.clone(),
            seat: seat.number,
            holder: seat.holder.clone(),
            on_behalf_of: (seat.first != seat.holder).then(|| seat.first.clone()),
            definition: self.definition.clone(),
            entity_type: self.entity_type.clone(),
            entity_id: self.entity_id.clone(),
            requester: self.requester.clone(),
            priority: self.priority,
            delegated: seat.hops > 0,
            escalated: seat.escalated,
            opened_at: seat.opened_at.unwrap_or(self.started_at),
            warn_at: step.warn_at,
            due_at: step.due_at,
        }
    }
}

/// Somebody is asked to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// In which instance.
    pub instance: InstanceId,
    /// In which step.
    pub step: String,
    /// By which seat.
    pub seat: u32,
    /// Who.
    pub holder: String,
    /// In whose place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// By which definition.
    pub definition: String,
    /// About what type of entity.
    pub entity_type: String,
    /// About which entity.
    pub entity_id: String,
    /// Who wants it decided.
    pub requester: String,
    /// How much it matters.
    pub priority: Priority,
    /// Whether somebody else passed it on.
    pub delegated: bool,
    /// Whether an escalation brought it.
    pub escalated: bool,
    /// Since when.
    pub opened_at: Timestamp,
    /// When it begins to be late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_at: Option<Timestamp>,
    /// By when it should be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
}

impl Task {
    /// Overdue.
    pub const OVERDUE: i64 = 100;
    /// Soon due.
    pub const WARNING: i64 = 50;

    /// What does not change with time: urgent 60, high 30, delegated 20, escalated 40.
    pub fn weight(&self) -> i64 {
        let priority = match self.priority {
            Priority::Urgent => 60,
            Priority::High => 30,
            Priority::Normal | Priority::Low => 0,
        };
        priority + if self.delegated { 20 } else { 0 } + if self.escalated { 40 } else { 0 }
    }

    /// How urgent it is: its weight, and 100 when overdue or else 50 when soon due.
    pub fn urgency(&self, now: Timestamp) -> i64 {
        let past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let late = if past(self.due_at) {
            Self::OVERDUE
        } else if past(self.warn_at) {
            Self::WARNING
        } else {
            0
        };
        late + self.weight()
    }
}
