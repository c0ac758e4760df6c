//! From "whoever has this role" to people: the port, and a fixed table of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{Approver, Definition, value_at};
use crate::instance::Instance;
use crate::step::ParkReason;
use crate::timer::{Purpose, Want};

/// Why a rule names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApproverError {
    /// The role, group or relation is unknown.
    #[error("{0}")]
    Unknown(String),
    /// The directory did not answer; it is asked again.
    #[error("{0}")]
    Unavailable(String),
}

/// Knows who has a role, who is in a group and who stands in a relation to a request.
#[async_trait]
pub trait Approvers: Send + Sync + 'static {
    /// The people of a role, group or relation, in the order they should be asked; none when it has no members.
    /// People named by the definition and by the entity itself are never asked for here.
    async fn resolve(&self, rule: &Approver, about: &Instance) -> Result<Vec<String>, ApproverError>;
}

/// Roles, groups and relations from a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticApprovers {
    /// Who has a role.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Who is in a group.
    pub groups: BTreeMap<String, Vec<String>>,
    /// By relation and requester, who stands in it; `*` for every other requester.
    pub relations: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl StaticApprovers {
    /// A table without entries: only people named directly are found.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a role.
    #[must_use]
    pub fn role<P: Into<String>>(
        mut self,
        role: impl Into<String>,
        people: impl IntoIterator<Item = P>,
    ) -> Self {
        self.roles.insert(role.into(), people.into_iter().map(Into::into).collect());
        self
    }

    /// The same with a group.
    #[must_use]
    pub fn group<P: Into<String>>(
        mut self,
        group: impl Into<String>,
        people: impl IntoIterator<Item = P>,
    ) -> Self {
        self.groups.insert(group.into(), people.into_iter().map(Into::into).collect());
        self
    }
}

#[async_trait]
impl Approvers for StaticApprovers {
    async fn resolve(&self, rule: &Approver, about: &Instance) -> Result<Vec<String>, ApproverError> {
        let unknown = |what: &str, name: &str| ApproverError::Unknown(format!("there is no {what} `{name}`"));
        match rule {
            Approver::Role(name) => self.roles.get(name).cloned().ok_or_else(|| unknown("role", name)),
            Approver::Group(name) => self.groups.get(name).cloned().ok_or_else(|| unknown("group", name)),
            Approver::Dynamic(name) => {
                let relation = self.relations.get(name).ok_or_else(|| unknown("relation", name))?;
                Ok(relation.get(&about.requester).or_else(|| relation.get("*")).cloned().unwrap_or_default())
            }
            Approver::User(user) => Ok(vec![user.clone()]),
            Approver::Field(path) => in_entity(path, &about.entity),
        }
    }
}

/// What came of looking for people.
pub(crate) struct NotFound {
    pub(crate) reason: ParkReason,
    pub(crate) message: String,
    pub(crate) again: bool,
}

/// Finds the people a want is for. For a step's decision the fallback is asked when nobody else may decide.
pub(crate) async fn find(
    approvers: &dyn Approvers,
    definition: &Definition,
    about: &Instance,
    want: &Want,
) -> Result<Vec<String>, NotFound> {
    let step = want.step.as_deref().and_then(|step| definition.step(step));
    match want.purpose {
        Purpose::Seats => {
            let Some(step) = step else { return Ok(Vec::new()) };
            let fits =
                |person: &String| *person != about.requester || definition.grants.requester_may_approve;
            let found = people(approvers, &step.approvers, about).await;
            match found {
                Ok(found) if found.iter().any(fits) => Ok(found),
                Err(error) if error.reason != ParkReason::GroupEmpty => Err(error),
                nobody if step.fallback.is_empty() => nobody,
                _ => people(approvers, &step.fallback, about).await,
            }
        }
        Purpose::Escalation(nth) => {
            let sla = step.map_or(definition.sla.as_ref(), |step| step.sla.as_ref());
            let escalation = sla.and_then(|sla| sla.escalations.get(nth));
            let rules = escalation.and_then(|escalation| escalation.action.people()).unwrap_or_default();
            people(approvers, rules, about).await
        }
    }
}

/// Everybody the rules name. A rule that is not understood is an error even if others name people: leaving its people
/// out would let fewer decide than the definition says.
async fn people(
    approvers: &dyn Approvers,
    rules: &[Approver],
    about: &Instance,
) -> Result<Vec<String>, NotFound> {
    let mut found = Vec::new();
    let mut empty = None;
    for rule in rules {
        let resolved = match rule {
            Approver::User(user) => Ok(vec![user.clone()]),
            Approver::Field(path) => in_entity(path, &about.entity),
            Approver::Role(_) | Approver::Group(_) | Approver::Dynamic(_) => {
                approvers.resolve(rule, about).await
            }
        };
        match resolved {
            Ok(people) if people.is_empty() => empty = Some(rule),
            Ok(people) => found.extend(people),
            Err(ApproverError::Unknown(message)) => {
                return Err(NotFound { reason: ParkReason::RoleMismatch, message, again: false });
            }
            Err(ApproverError::Unavailable(message)) => {
                return Err(NotFound { reason: ParkReason::SystemError, message, again: true });
            }
        }
    }
    match empty {
        Some(rule) if found.is_empty() => {
            let rule = serde_json::to_string(rule).unwrap_or_default();
            let message = format!("{rule} is nobody");
            Err(NotFound { reason: ParkReason::GroupEmpty, message, again: false })
        }
        _ => Ok(found),
    }
}

fn in_entity(path: &str, entity: &Value) -> Result<Vec<String>, ApproverError> {
    let wrong =
        || ApproverError::Unknown(format!("the entity's `{path}` is neither a person nor a list of people"));
    match value_at(entity, path) {
        None | Some(Value::Null) => Err(ApproverError::Unknown(format!("the entity has no `{path}`"))),
        Some(Value::String(person)) => Ok(vec![person.clone()]),
        Some(Value::Array(people)) => {
            people.iter().map(|person| person.as_str().map(ToOwned::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}
