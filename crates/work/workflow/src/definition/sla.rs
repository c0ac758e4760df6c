//! By when something should be decided, and what happens on the way there and after.

use serde::{Deserialize, Serialize};

use super::{Approver, Span};

/// A promise about time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sla {
    /// Due so long after the start.
    pub due: Span,
    /// A warning at such a share of the time until then, in percent, 1 to 99. 80 unless told.
    #[serde(default = "eighty")]
    pub warn_at: u8,
    /// Reminders to those who have not decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reminders: Vec<Reminder>,
    /// What is done when it is overdue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalations: Vec<Escalation>,
    /// So long after it was due, the whole instance expires. Never unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after: Option<Span>,
}

const fn eighty() -> u8 {
    80
}

/// Reminds those who have not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Reminder {
    /// So long after the start.
    pub after: Span,
    /// Again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
}

/// Again, so many times. Turns that passed while nothing ran are made up for by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// The time between two.
    pub every: Span,
    /// How many times more.
    pub times: u32,
}

/// Something done about an overdue decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// So long after it was due.
    pub after: Span,
    /// What.
    pub action: EscalationAction,
    /// Again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
}

/// What an escalation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EscalationAction {
    /// Tells these people.
    Notify(Vec<Approver>),
    /// Asks these people instead of those who have not decided.
    Reassign(Vec<Approver>),
    /// Asks these people too: each has a seat more.
    AddApprover(Vec<Approver>),
    /// Approves the step.
    AutoApprove,
    /// Rejects the step.
    AutoReject,
}

impl EscalationAction {
    /// Whom it needs, if anybody.
    pub fn people(&self) -> Option<&[Approver]> {
        match self {
            Self::Notify(people) | Self::Reassign(people) | Self::AddApprover(people) => Some(people),
            Self::AutoApprove | Self::AutoReject => None,
        }
    }
}
