//! What a workflow is: its steps, who is asked, how many must agree, by when.

mod check;
mod condition;
mod diff;
mod operand;
mod order;
mod problem;
mod read;
mod sla;
mod span;
mod version;
#[cfg(feature = "yaml")]
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::check::MAX_STEPS;
pub(crate) use self::condition::value_at;
pub use self::condition::{Condition, ConditionError, Operator, Test};
pub use self::diff::{Change, Difference};
pub use self::problem::{Problem, ProblemCode};
#[cfg(feature = "schema")]
pub use self::read::schema;
pub use self::read::{Format, MAX_BYTES};
pub use self::sla::{Escalation, EscalationAction, Reminder, Repeat, Sla};
pub use self::span::{Span, SpanError, Unit};
pub use self::version::{Version, VersionState};
pub use crate::calendar::Calendar;

/// A workflow as it is written down: YAML, JSON or code.
///
/// It is checked whole when it is registered; a running instance keeps the one it was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is called by programs; unique in a tenant.
    pub code: String,
    /// What it is called by people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The type of the entities it decides about: `purchase_order`, `leave_request`, …
    pub entity_type: String,
    /// Which entities it is for, when a start names no definition. For all of them unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Of several definitions that fit, the highest is taken. 0 unless told.
    #[serde(default)]
    pub priority: i32,
    /// What has to be settled before the whole is.
    pub steps: Vec<Step>,
    /// By when the whole should be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sla: Option<Sla>,
    /// Working time, for spans in business time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// What participants may do; everything unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_actions: Option<BTreeSet<ActionKind>>,
    /// Who may do what is otherwise refused.
    #[serde(default)]
    pub grants: Grants,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name within the definition.
    pub id: String,
    /// What it is called by people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A step starts when every step of a lower level is settled. From 1, without gaps. 1 unless told.
    #[serde(default = "one")]
    pub level: u32,
    /// How its approvers are asked.
    #[serde(rename = "type", default)]
    pub kind: StepKind,
    /// How many of them must agree.
    #[serde(default)]
    pub requirement: Requirement,
    /// Who is asked. One person is asked once, however many entries name them.
    pub approvers: Vec<Approver>,
    /// Who is asked when `approvers` turns out to be nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Approver>,
    /// Steps that must be settled first, beside those of lower levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// A conditional step runs when this holds, and is skipped otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// The step is skipped when this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_when: Option<Condition>,
    /// The step is approved without asking when this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_approve_when: Option<Condition>,
    /// By when it should be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sla: Option<Sla>,
}

const fn one() -> u32 {
    1
}

/// How a step's approvers are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// One after the other, in the order they are listed.
    Sequential,
    /// All at once.
    #[default]
    Parallel,
    /// All at once, when the step's `when` holds.
    Conditional,
}

/// How many of a step's approvers must agree. Counted over seats: delegating moves a seat and adds none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// One.
    Any,
    /// Everyone.
    #[default]
    All,
    /// More than half.
    Majority,
    /// So many, or such a share.
    Quorum(Quorum),
}

/// A quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// So many people.
    Count(u32),
    /// Such a share in percent, 1 to 100, rounded up to whole people.
    Percent(u32),
}

impl Requirement {
    /// How many of `seats` must agree; never zero, so that nobody's silence is consent.
    pub fn needed(self, seats: usize) -> usize {
        match self {
            Self::Any => 1,
            Self::All => seats.max(1),
            Self::Majority => seats / 2 + 1,
            Self::Quorum(Quorum::Count(count)) => usize::try_from(count).unwrap_or(usize::MAX).max(1),
            Self::Quorum(Quorum::Percent(percent)) => {
                let percent = usize::try_from(percent).unwrap_or(100);
                seats.saturating_mul(percent).div_ceil(100).max(1)
            }
        }
    }
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Approver {
    /// This person.
    User(String),
    /// Whoever has this role.
    Role(String),
    /// The members of this group.
    Group(String),
    /// The person, or the people, the entity names at this path.
    Field(String),
    /// A relation the resolver knows: `department_head`, `cost_center_owner`, `reporting_hierarchy`, …
    Dynamic(String),
}

/// What a participant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActionKind {
    /// Say yes.
    Approve,
    /// Say no.
    Reject,
    /// Send back to the requester.
    RequestChanges,
    /// Answer a request for changes.
    Resubmit,
    /// Let somebody else decide.
    Delegate,
    /// Run the next escalation now.
    Escalate,
    /// Stop the clock.
    Hold,
    /// Let it run again.
    Release,
    /// The requester takes the request back.
    Withdraw,
    /// Decide a step without a seat in it.
    Bypass,
    /// Say something.
    Comment,
}

/// Who may do what is otherwise refused, by user id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Whether the requester may be one of the approvers.
    pub requester_may_approve: bool,
    /// Who may bypass a step, beside those with the scope `workflow:bypass`.
    pub bypass: BTreeSet<String>,
    /// Who may administer, beside those with the scope `workflow:admin`.
    pub admin: BTreeSet<String>,
}

impl Definition {
    /// The step of an id.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// Steps that wait for another, directly or through others, itself included.
    pub fn dependents(&self, id: &str) -> BTreeSet<&str> {
        let mut found: BTreeSet<&str> = self.step(id).map(|step| step.id.as_str()).into_iter().collect();
        let level = self.step(id).map_or(u32::MAX, |step| step.level);
        found.extend(self.steps.iter().filter(|step| step.level > level).map(|step| step.id.as_str()));
        loop {
            let more: Vec<&str> = self
                .steps
                .iter()
                .filter(|step| !found.contains(step.id.as_str()))
                .filter(|step| step.depends_on.iter().any(|on| found.contains(on.as_str())))
                .map(|step| step.id.as_str())
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }
}

/// By id, for lookups while checking.
pub(crate) fn by_id(steps: &[Step]) -> BTreeMap<&str, &Step> {
    steps.iter().map(|step| (step.id.as_str(), step)).collect()
}
