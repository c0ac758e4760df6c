//! An entry of somebody's inbox, and how urgent it is.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, InstanceId, Priority};
use crate::step::{Seat, StepRun};

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

impl Instance {
    pub(crate) fn task(&self, step: &StepRun, seat: &Seat) -> Task {
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
