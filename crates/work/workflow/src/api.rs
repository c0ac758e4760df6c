//! Requests and answers as an API takes and gives them.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::{Action, Order};
use crate::instance::Priority;
use crate::task::Task;

/// Starts an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// By which definition; the one that fits the entity when absent.
    #[serde(default)]
    pub definition: Option<String>,
    /// The type of the entity; the definition's when absent.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// Which entity.
    pub entity_id: String,
    /// Its data.
    #[serde(default)]
    pub entity: Value,
    /// What else is to be remembered.
    #[serde(default)]
    pub metadata: Value,
    /// How much it matters.
    #[serde(default)]
    pub priority: Priority,
    /// For whom; the caller when absent. Another needs the scope `workflow:admin`.
    #[serde(default)]
    pub requester: Option<String>,
}

impl StartRequest {
    /// By this definition about this entity.
    pub fn new(definition: impl Into<String>, entity_id: impl Into<String>, entity: Value) -> Self {
        let (definition, entity_id) = (Some(definition.into()), entity_id.into());
        Self { definition, entity_id, entity, ..Self::default() }
    }
}

/// What makes a request safe to repeat, and refuses it when the instance is no longer as the caller has seen it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Guard {
    /// The caller's own id of the action: done once however often it is asked for.
    pub action_id: Option<String>,
    /// The revision the caller has seen; whichever it is when absent.
    pub revision: Option<u64>,
}

impl Guard {
    /// Done once under this id.
    pub fn once(action_id: impl Into<String>) -> Self {
        Self { action_id: Some(action_id.into()), revision: None }
    }
}

/// A participant acts: `{"action": "approve", "action_id": "…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActRequest {
    /// Once, and on what was seen.
    #[serde(flatten)]
    pub guard: Guard,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// An administrator orders: `{"order": "skip_step", "step": "finance", "reason": "…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OrderRequest {
    /// Once, and on what was seen.
    #[serde(flatten)]
    pub guard: Guard,
    /// Why; needed.
    pub reason: String,
    /// What.
    #[serde(flatten)]
    pub order: Order,
}

/// An entry of an inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxItem {
    /// How urgent it is: overdue 100, soon due 50, urgent 60, high 30, delegated 20, escalated 40.
    pub urgency: i64,
    /// Whether it is overdue.
    pub overdue: bool,
    /// Who is asked to decide what.
    #[serde(flatten)]
    pub task: Task,
}

impl InboxItem {
    pub(crate) fn new((task, urgency): (Task, i64)) -> Self {
        Self { urgency, overdue: urgency - task.weight() >= Task::OVERDUE, task }
    }

    /// By when it should be decided.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.task.due_at
    }
}
