//! Workflows for callers: who may, in which tenant, once, and against the store's latest revision.

use std::sync::Arc;

use runtime_kernel::{Context, SharedClock};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::{Guard, StartRequest};
use crate::approvers::Approvers;
use crate::command::{Action, Actor, Command, Order};
use crate::config::WorkflowConfig;
use crate::decide::{Start, begin};
use crate::definition::{Version, VersionState};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{Change, VersionFilter, WorkflowStore};

/// Told of what was written, after it was.
type Told = Arc<dyn Fn(&Instance, &[Event]) + Send + Sync>;

/// Bytes an action's, an entity's or a person's id may have.
const MAX_ID: usize = 256;

/// Workflows over a store. Cheap to clone; keeps nothing that a restart would lose.
#[derive(Clone)]
pub struct Workflows {
    pub(crate) store: Arc<dyn WorkflowStore>,
    pub(crate) approvers: Arc<dyn Approvers>,
    config: WorkflowConfig,
    pub(crate) clock: SharedClock,
    told: Vec<Told>,
}

impl std::fmt::Debug for Workflows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workflows").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Workflows {
    /// Over a store, with somebody who knows the people.
    pub fn new(
        store: Arc<dyn WorkflowStore>,
        approvers: Arc<dyn Approvers>,
        config: WorkflowConfig,
        clock: SharedClock,
    ) -> Self {
        Self { store, approvers, config, clock, told: Vec::new() }
    }

    /// Calls `told` after each change this process has written: to send notifications, to publish. It is not called
    /// again after a crash in between; the events themselves are kept for ever.
    #[must_use]
    pub fn hook(mut self, told: impl Fn(&Instance, &[Event]) + Send + Sync + 'static) -> Self {
        self.told.push(Arc::new(told));
        self
    }

    pub(crate) fn config(&self) -> &WorkflowConfig {
        &self.config
    }

    /// Starts an instance; an entity that is being decided about is not asked about twice.
    ///
    /// # Errors
    /// [`WorkflowError::NoDefinition`], [`WorkflowError::ActiveInstance`] with the one there is, and what conditions of
    /// definitions cannot answer.
    pub async fn start(&self, context: &Context, request: StartRequest) -> Result<Instance, WorkflowError> {
        let (tenant, actor) = (namespace(context), actor(context)?);
        id_fits("entity_id", &request.entity_id)?;
        self.fits("entity", &request.entity)?;
        self.fits("metadata", &request.metadata)?;
        let requester = request.requester.clone().unwrap_or_else(|| actor.id.clone());
        id_fits("requester", &requester)?;
        if requester != actor.id && !actor.may_administer {
            return Err(WorkflowError::NotGranted { who: actor.id, what: "start for somebody else" });
        }
        let version = self.choose(&tenant, &request).await?;
        let definition = version.definition;
        let start = Start {
            id: InstanceId::new(&*self.clock),
            tenant,
            version: version.number,
            entity_id: request.entity_id,
            entity: request.entity,
            metadata: request.metadata,
            requester,
            priority: request.priority,
            context: Some(context.carry(&*self.clock)),
        };
        let now = self.store.now().await?;
        let begun = begin(&definition, start, now)?;
        let (instance, events) = self.supply(&definition, begun, now).await?;
        let change = Change { from: 0, instance, events, mark: None };
        match self.store.create(&definition, &change).await? {
            Some(other) => Err(WorkflowError::ActiveInstance(other)),
            None => Ok(self.tell(change)),
        }
    }

    /// The caller acts.
    ///
    /// # Errors
    /// [`WorkflowError`] says why it is refused; nothing has then changed.
    pub async fn act(
        &self,
        context: &Context,
        id: InstanceId,
        action: Action,
        guard: &Guard,
    ) -> Result<Instance, WorkflowError> {
        if let Action::Resubmit { entity } = &action {
            self.fits("entity", entity)?;
        }
        let by = actor(context)?;
        let print = fingerprint(&by, &serde_json::to_value(&action).unwrap_or_default());
        self.drive(&namespace(context), id, guard, &print, &Command::Act { by, action }).await
    }

    /// The caller orders, as an administrator.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub async fn order(
        &self,
        context: &Context,
        id: InstanceId,
        order: Order,
        reason: impl Into<String>,
        guard: &Guard,
    ) -> Result<Instance, WorkflowError> {
        let (by, reason) = (actor(context)?, reason.into());
        let print = fingerprint(&by, &serde_json::json!([order, reason]));
        self.drive(&namespace(context), id, guard, &print, &Command::Order { by, order, reason }).await
    }

    /// The active version of the definition that is named, or of the one that fits the entity best: the tenant's own
    /// before the house's.
    async fn choose(&self, tenant: &str, request: &StartRequest) -> Result<Version, WorkflowError> {
        let filter = VersionFilter {
            code: request.definition.clone(),
            entity_type: request.entity_type.clone(),
            state: Some(VersionState::Active),
        };
        if filter.code.is_none() && filter.entity_type.is_none() {
            let why = "or `definition` is needed".to_owned();
            return Err(WorkflowError::Invalid { field: "entity_type", why });
        }
        for owner in if tenant.is_empty() { vec![""] } else { vec![tenant, ""] } {
            let mut best: Option<Version> = None;
            for version in self.store.versions(owner, &filter).await? {
                let fits = match (&request.definition, &version.definition.when) {
                    (None, Some(when)) => when.holds(&request.entity)?,
                    _ => true,
                };
                if fits && best.as_ref().is_none_or(|b| version.definition.priority > b.definition.priority) {
                    best = Some(version);
                }
            }
            if let Some(best) = best {
                return Ok(best);
            }
        }
        let what = request.definition.as_ref().or(request.entity_type.as_ref());
        Err(WorkflowError::NoDefinition(what.map(|what| format!("`{what}`")).unwrap_or_default()))
    }

    pub(crate) fn tell(&self, change: Change) -> Instance {
        for told in &self.told {
            told(&change.instance, &change.events);
        }
        change.instance
    }

    fn fits(&self, what: &'static str, value: &Value) -> Result<(), WorkflowError> {
        let size = value.to_string().len();
        let limit = self.config.max_entity.as_usize();
        if size > limit { Err(WorkflowError::TooLarge { what, size, limit }) } else { Ok(()) }
    }
}

/// The namespace of a context's tenant; empty without one.
pub(crate) fn namespace(context: &Context) -> String {
    context.tenant.as_ref().map(|tenant| tenant.namespace()).unwrap_or_default()
}

pub(crate) fn actor(context: &Context) -> Result<Actor, WorkflowError> {
    context.principal.as_deref().map(Actor::of).ok_or(WorkflowError::NobodyActs)
}

pub(crate) fn id_fits(field: &'static str, text: &str) -> Result<(), WorkflowError> {
    if text.trim().is_empty() || text.len() > MAX_ID {
        return Err(WorkflowError::Invalid { field, why: format!("must be 1 to {MAX_ID} bytes") });
    }
    Ok(())
}

fn fingerprint(by: &Actor, what: &Value) -> String {
    let digest = Sha256::digest(format!("{}\n{what}", by.id));
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
