//! Workflows for callers: who may, in which tenant, once, and against the store's latest revision.

use std::sync::Arc;

use runtime_kernel::{Context, SharedClock, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::{Guard, InboxItem, StartRequest};
use crate::approvers::{Approvers, find};
use crate::command::{Action, Actor, Command, Order, READ};
use crate::config::WorkflowConfig;
use crate::decide::{Start, begin, decide};
use crate::definition::{Definition, Version, VersionState};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{Change, InstanceFilter, Loaded, Mark, VersionFilter, WorkflowStore};

/// Told of what was written, after it was.
type Told = Arc<dyn Fn(&Instance, &[Event]) + Send + Sync>;

/// How often a change is made anew on what others have made of the instance meanwhile.
const ROUNDS: u32 = 64;

/// Bytes an action's, an entity's or a person's id may have.
const MAX_ID: usize = 256;

/// Workflows over a store. Cheap to clone; keeps nothing that a restart would lose.
#[derive(Clone)]
pub struct Workflows {
    pub(crate) store: Arc<dyn WorkflowStore>,
    approvers: Arc<dyn Approvers>,
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

    /// An instance, for those who have to do with it.
    ///
    /// # Errors
    /// [`WorkflowError::NotFound`], also for those who may not know of it.
    pub async fn get(&self, context: &Context, id: InstanceId) -> Result<Instance, WorkflowError> {
        let actor = actor(context)?;
        let loaded = self.store.load(&namespace(context), id, None).await?;
        let Loaded { definition, instance, .. } = loaded.ok_or(WorkflowError::NotFound(id))?;
        let asked = instance.steps.iter().flat_map(|step| &step.seats);
        let involved = instance.requester == actor.id
            || sees_all(context)
            || definition.grants.admin.contains(&actor.id)
            || asked.into_iter().any(|seat| seat.holder == actor.id || seat.first == actor.id);
        if involved { Ok(instance) } else { Err(WorkflowError::NotFound(id)) }
    }

    /// What has happened to an instance after an event's number, in order; at most 1000 events.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn history(
        &self,
        context: &Context,
        id: InstanceId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, WorkflowError> {
        let instance = self.get(context, id).await?;
        self.store.events(&instance.tenant, id, after, limit).await
    }

    /// What the caller is asked to decide, the most urgent first; at most 1000 entries.
    ///
    /// # Errors
    /// Of the store.
    pub async fn inbox(&self, context: &Context, limit: u32) -> Result<Vec<InboxItem>, WorkflowError> {
        let actor = actor(context)?;
        let tasks = self.store.tasks(&namespace(context), Some(&actor.id), limit).await?;
        Ok(tasks.into_iter().map(InboxItem::new).collect())
    }

    /// What everybody in the tenant is asked to decide; needs the scope `workflow:read` or `workflow:admin`.
    ///
    /// # Errors
    /// [`WorkflowError::NotGranted`].
    pub async fn work_queue(&self, context: &Context, limit: u32) -> Result<Vec<InboxItem>, WorkflowError> {
        must_see_all(context)?;
        let tasks = self.store.tasks(&namespace(context), None, limit).await?;
        Ok(tasks.into_iter().map(InboxItem::new).collect())
    }

    /// Instances of the tenant, newest first: the caller's own, or with the scope `workflow:read` or `workflow:admin`
    /// everybody's. `parked: true` lists what has to be recovered.
    ///
    /// # Errors
    /// Of the store.
    pub async fn list(
        &self,
        context: &Context,
        mut filter: InstanceFilter,
    ) -> Result<Vec<Instance>, WorkflowError> {
        let actor = actor(context)?;
        if !sees_all(context) {
            filter.requester = Some(actor.id);
        }
        self.store.instances(&namespace(context), &filter).await
    }

    /// Time has passed for one instance. Says whether anything was done.
    pub(crate) async fn tick(&self, tenant: &str, id: InstanceId) -> Result<bool, WorkflowError> {
        let Some(loaded) = self.store.load(tenant, id, None).await? else { return Ok(false) };
        let Loaded { definition, instance, now, .. } = loaded;
        let from = instance.revision;
        let ticked = match decide(&definition, &instance, Command::Tick, now) {
            Ok(ticked) => ticked,
            // Nothing but people that have to be looked for again, or somebody else was here before.
            Err(WorkflowError::NothingDue) => (instance, Vec::new()),
            Err(WorkflowError::Ended(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let (instance, events) = self.supply(&definition, ticked, now).await?;
        if instance.revision == from {
            return Ok(false);
        }
        let change = Change { from, instance, events, mark: None };
        // Whoever was first has done it; what is left is due at the next look.
        let first = self.store.commit(&change).await?;
        if first {
            self.tell(change);
        }
        Ok(first)
    }

    async fn drive(
        &self,
        tenant: &str,
        id: InstanceId,
        guard: &Guard,
        print: &str,
        command: &Command,
    ) -> Result<Instance, WorkflowError> {
        if let Some(action) = &guard.action_id {
            id_fits("action_id", action)?;
        }
        for _ in 0..ROUNDS {
            let loaded = self.store.load(tenant, id, guard.action_id.as_deref()).await?;
            let Loaded { definition, instance, done, now } = loaded.ok_or(WorkflowError::NotFound(id))?;
            match done {
                Some(done) if done == print => return Ok(instance),
                Some(_) => return Err(WorkflowError::ActionReused),
                None => {}
            }
            if let Some(expected) = guard.revision.filter(|seen| *seen != instance.revision) {
                return Err(WorkflowError::Revision { expected, found: instance.revision });
            }
            let decided = decide(&definition, &instance, command.clone(), now)?;
            let from = instance.revision;
            let (instance, events) = self.supply(&definition, decided, now).await?;
            let mark = guard.action_id.clone().map(|id| Mark { id, fingerprint: print.to_owned() });
            let change = Change { from, instance, events, mark };
            if self.store.commit(&change).await? {
                return Ok(self.tell(change));
            }
            // Somebody else was first, so somebody has got on: there is nothing to wait for.
            tokio::task::yield_now().await;
        }
        Err(WorkflowError::Contended)
    }

    /// Finds the people an instance waits for, as far as they are to be looked for now.
    async fn supply(
        &self,
        definition: &Definition,
        (mut instance, mut events): (Instance, Vec<Event>),
        now: Timestamp,
    ) -> Result<(Instance, Vec<Event>), WorkflowError> {
        loop {
            let stopped = instance.status.is_end() || instance.status.is_stopped();
            let want = instance.wants.iter().find(|want| want.at <= now && !stopped).cloned();
            let Some(want) = want else { return Ok((instance, events)) };
            let found = find(&*self.approvers, definition, &instance, &want).await;
            let (step, purpose) = (want.step, want.purpose);
            let command = match found {
                Ok(people) => Command::Found { step, purpose, people },
                Err(not) => Command::NotFound {
                    step,
                    purpose,
                    reason: not.reason,
                    message: not.message,
                    again: not.again,
                },
            };
            let (next, more) = decide(definition, &instance, command, now)?;
            instance = next;
            events.extend(more);
        }
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

    fn tell(&self, change: Change) -> Instance {
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

fn sees_all(context: &Context) -> bool {
    let principal = context.principal.as_deref();
    principal.is_some_and(|principal| principal.allows(READ) || principal.allows(crate::command::ADMIN))
}

fn must_see_all(context: &Context) -> Result<(), WorkflowError> {
    let actor = actor(context)?;
    if sees_all(context) {
        return Ok(());
    }
    Err(WorkflowError::NotGranted { who: actor.id, what: "see everybody's tasks" })
}

fn id_fits(field: &'static str, text: &str) -> Result<(), WorkflowError> {
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
