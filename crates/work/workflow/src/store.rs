//! The port: where definitions, instances, their events and their tasks live.

use std::sync::Arc;

use async_trait::async_trait;
use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::definition::{Definition, Version, VersionState};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId, Status};
use crate::task::Task;

/// An action that is done once however often it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The id the caller gave it.
    pub id: String,
    /// What it was, so that the id cannot be used for something else.
    pub fingerprint: String,
}

/// What is written together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The revision it was made from; 0 for a new instance.
    pub from: u64,
    /// The instance as it then is.
    pub instance: Instance,
    /// What happened.
    pub events: Vec<Event>,
    /// The action that did it.
    pub mark: Option<Mark>,
}

/// An instance with the definition it was started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The frozen definition.
    pub definition: Arc<Definition>,
    /// The instance.
    pub instance: Instance,
    /// The fingerprint of the action asked for, if it was done already.
    pub done: Option<String>,
    /// The store's time.
    pub now: Timestamp,
}

/// Which versions to list.
#[derive(Clone, Debug, Default)]
pub struct VersionFilter {
    /// Of this definition.
    pub code: Option<String>,
    /// For entities of this type.
    pub entity_type: Option<String>,
    /// In this state.
    pub state: Option<VersionState>,
}

/// Which instances to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstanceFilter {
    /// Of this status.
    pub status: Option<Status>,
    /// With a step that cannot go on by itself, or without.
    pub parked: Option<bool>,
    /// About entities of this type.
    pub entity_type: Option<String>,
    /// About this entity.
    pub entity_id: Option<String>,
    /// Asked for by this person.
    pub requester: Option<String>,
    /// Older than this one: the keyset of the next page.
    pub before: Option<InstanceId>,
    /// At most so many, newest first; 100 unless told, 1000 at most.
    pub limit: Option<u32>,
}

/// Something due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Since when.
    pub at: Timestamp,
    /// Whose.
    pub tenant: String,
    /// Which.
    pub id: InstanceId,
}

/// How much waits for people, in all tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Tasks somebody is asked to decide.
    pub open: u64,
    /// Of those, the ones that should have been decided by now.
    pub overdue: u64,
    /// Instances with a step that cannot go on by itself.
    pub parked: u64,
}

/// Entries of one page, as asked for and within bounds.
pub(crate) fn page(limit: Option<u32>) -> u32 {
    limit.unwrap_or(100).clamp(1, 1000)
}

/// Where workflows live. Laws every implementation keeps are in `laws` (feature `testkit`).
///
/// What returned `Ok` is durable. Of several changes made from one revision exactly one is taken. An entity of a tenant
/// has at most one instance that has not ended. Events are never changed.
#[async_trait]
pub trait WorkflowStore: Send + Sync + 'static {
    /// The time all processes agree on.
    async fn now(&self) -> Result<Timestamp, WorkflowError>;
    /// Adds a version; `false` when its number is taken.
    async fn add_version(&self, tenant: &str, version: &Version) -> Result<bool, WorkflowError>;
    /// Versions by code, newest first.
    async fn versions(&self, tenant: &str, filter: &VersionFilter) -> Result<Vec<Version>, WorkflowError>;
    /// Moves a version from one state to another; `false` when it is not in the first. Activating one deprecates the
    /// active one of the same code, together or not at all.
    async fn set_state(
        &self,
        tenant: &str,
        code: &str,
        number: u32,
        from: VersionState,
        to: VersionState,
    ) -> Result<bool, WorkflowError>;
    /// Adds an instance with its definition; or names the one that decides about the entity already.
    async fn create(
        &self,
        definition: &Definition,
        change: &Change,
    ) -> Result<Option<InstanceId>, WorkflowError>;
    /// An instance; and whether an action was done already.
    async fn load(
        &self,
        tenant: &str,
        id: InstanceId,
        action: Option<&str>,
    ) -> Result<Option<Loaded>, WorkflowError>;
    /// Writes a change; `false` when the instance has moved on from the revision it was made from.
    async fn commit(&self, change: &Change) -> Result<bool, WorkflowError>;
    /// Instances with something due by the store's time, the longest due first, after a place in that order.
    async fn due(&self, after: Option<&Due>, limit: u32) -> Result<Vec<Due>, WorkflowError>;
    /// Open tasks of one holder, or of all, the most urgent first: by urgency, then due time, then age.
    async fn tasks(
        &self,
        tenant: &str,
        holder: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Task, i64)>, WorkflowError>;
    /// How much waits for people, in all tenants, by the store's time.
    async fn standing(&self) -> Result<Standing, WorkflowError>;
    /// Instances, newest first.
    async fn instances(&self, tenant: &str, filter: &InstanceFilter) -> Result<Vec<Instance>, WorkflowError>;
    /// Events of an instance after a number, in order.
    async fn events(
        &self,
        tenant: &str,
        id: InstanceId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, WorkflowError>;
}
