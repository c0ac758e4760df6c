//! From the store's latest revision to the next one: decided, supplied with people, compared and set.

use runtime_kernel::Timestamp;

use crate::api::Guard;
use crate::approvers::find;
use crate::command::Command;
use crate::decide::decide;
use crate::definition::Definition;
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{Change, Loaded, Mark};
use crate::workflows::{Workflows, id_fits};

/// How often a change is made anew on what others have made of the instance meanwhile.
const ROUNDS: u32 = 64;

impl Workflows {
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

    pub(crate) async fn drive(
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
    pub(crate) async fn supply(
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
}
