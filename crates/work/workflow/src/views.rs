//! What callers may see: their own, and with a scope everybody's.

use runtime_kernel::Context;

use crate::api::InboxItem;
use crate::command::{ADMIN, READ};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{InstanceFilter, Loaded, Standing};
use crate::workflows::{Workflows, actor, namespace};

impl Workflows {
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

    /// How much waits for people, in all tenants: for the operators of the installation.
    ///
    /// # Errors
    /// Of the store.
    pub async fn standing(&self) -> Result<Standing, WorkflowError> {
        self.store.standing().await
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
}

fn sees_all(context: &Context) -> bool {
    let principal = context.principal.as_deref();
    principal.is_some_and(|principal| principal.allows(READ) || principal.allows(ADMIN))
}

fn must_see_all(context: &Context) -> Result<(), WorkflowError> {
    let actor = actor(context)?;
    if sees_all(context) {
        return Ok(());
    }
    Err(WorkflowError::NotGranted { who: actor.id, what: "see everybody's tasks" })
}
