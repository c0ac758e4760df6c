//! A running workflow: everything there is to know about it, and nothing that only memory knows.

use runtime_kernel::{Carried, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::step::{SeatState, StepRun, StepStatus};
use crate::task::Task;
use crate::timer::{Timer, Want};

runtime_kernel::id!(InstanceId, "One run of a workflow about one entity.");

/// How much a request matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
        matches!(self, Self::Approved | Self::Rejected | Self::Cancelled | Self::Expired | Self::Withdrawn)
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

/// A stopped clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when.
    pub since: Timestamp,
    /// By whom.
    pub by: String,
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
}
