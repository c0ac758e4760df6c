//! The whole machine as pure functions: what is, what is asked and what time it is, to what then is and what happened.
//!
//! | instance is | may become |
//! |---|---|
//! | pending | in progress, on hold, and any end |
//! | in progress | on hold, changes requested, and any end |
//! | on hold | pending, in progress (released), and any end but expired |
//! | changes requested | pending (resubmitted), in progress (released by an administrator), and any end but expired |
//! | approved, rejected, cancelled, expired, withdrawn | |
//!
//! | step is | may become |
//! |---|---|
//! | pending | seating, approved or skipped (a condition, an administrator), cancelled |
//! | seating | active, approved, rejected or skipped (bypass, administrator), cancelled, pending (restart) |
//! | active | approved, rejected, skipped, expired, cancelled, pending (restart) |
//! | approved, skipped | pending (restart, resubmission) |
//! | rejected, expired, cancelled | |

mod act;
mod advance;
mod find;
mod order;
mod seats;
mod time;

use runtime_kernel::{Carried, Timestamp};
use serde_json::Value;

use crate::calendar::Hours;
use crate::command::{Actor, Command};
use crate::definition::{Definition, Step};
use crate::error::WorkflowError;
use crate::event::{Event, What};
use crate::instance::{Instance, InstanceId, Priority, Status};
use crate::step::{ParkReason, Parked, StepRun};

/// What an instance is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The id it will have.
    pub id: InstanceId,
    /// The tenant's namespace.
    pub tenant: String,
    /// The definition's version.
    pub version: u32,
    /// Which entity.
    pub entity_id: String,
    /// Its data.
    pub entity: Value,
    /// What else is to be remembered.
    pub metadata: Value,
    /// Who asks.
    pub requester: String,
    /// How much it matters.
    pub priority: Priority,
    /// The trace and tenant it is started under.
    pub context: Option<Carried>,
}

/// Starts an instance, with revision 1. Who decides is then to be found: see [`Instance::wants`].
///
/// # Errors
/// [`WorkflowError::Calendar`] when a due time lies beyond the calendar.
pub fn begin(
    definition: &Definition,
    start: Start,
    now: Timestamp,
) -> Result<(Instance, Vec<Event>), WorkflowError> {
    let instance = Instance {
        id: start.id,
        tenant: start.tenant,
        revision: 1,
        definition: definition.code.clone(),
        version: start.version,
        entity_type: definition.entity_type.clone(),
        entity_id: start.entity_id,
        entity: start.entity,
        metadata: start.metadata,
        requester: start.requester.clone(),
        priority: start.priority,
        status: Status::Pending,
        steps: definition.steps.iter().map(|step| StepRun::new(&step.id)).collect(),
        timers: Vec::new(),
        wants: Vec::new(),
        held: None,
        events: 0,
        started_at: now,
        due_at: None,
        ended_at: None,
        context: start.context,
    };
    let mut turn = Turn::new(definition, instance, now)?;
    turn.by = Some(start.requester);
    turn.tell(None, What::Started { definition: definition.code.clone(), version: start.version });
    turn.by = None;
    turn.start_whole_clock()?;
    turn.advance()?;
    Ok((turn.instance, turn.events))
}

/// Moves an instance: the next one, with the next revision, and what happened; or why nothing may.
///
/// # Errors
/// [`WorkflowError`] says why the command is refused; the instance is then as it was.
pub fn decide(
    definition: &Definition,
    instance: &Instance,
    command: Command,
    now: Timestamp,
) -> Result<(Instance, Vec<Event>), WorkflowError> {
    if instance.status.is_end() {
        return Err(WorkflowError::Ended(instance.status));
    }
    let mut turn = Turn::new(definition, instance.clone(), now)?;
    turn.instance.revision += 1;
    match command {
        Command::Act { by, action } => turn.act(&by, action)?,
        Command::Order { by, order, reason } => turn.order(&by, order, reason)?,
        Command::Found { step, purpose, people } => turn.found(step.as_deref(), purpose, people)?,
        Command::NotFound { step, purpose, reason, message, again } => {
            turn.not_found(step.as_deref(), purpose, reason, message, again)?;
        }
        Command::Tick => turn.tick()?,
    }
    turn.by = None;
    turn.reason = None;
    turn.advance()?;
    Ok((turn.instance, turn.events))
}

/// An instance on its way from one revision to the next.
struct Turn<'a> {
    definition: &'a Definition,
    hours: Option<Hours>,
    instance: Instance,
    events: Vec<Event>,
    now: Timestamp,
    by: Option<String>,
    reason: Option<String>,
}

impl<'a> Turn<'a> {
    fn new(definition: &'a Definition, instance: Instance, now: Timestamp) -> Result<Self, WorkflowError> {
        let calendar = definition.calendar.as_ref().map(Hours::new).transpose();
        let hours =
            calendar.map_err(|bad| WorkflowError::Corrupt(format!("calendar.{}: {}", bad.key, bad.why)))?;
        if !definition.steps.iter().map(|step| &step.id).eq(instance.steps.iter().map(|step| &step.id)) {
            return Err(WorkflowError::Corrupt(
                "the instance has other steps than its definition".to_owned(),
            ));
        }
        Ok(Self { definition, hours, instance, events: Vec::new(), now, by: None, reason: None })
    }

    fn tell(&mut self, step: Option<&str>, what: What) {
        self.instance.events += 1;
        self.events.push(Event {
            number: self.instance.events,
            at: self.now,
            by: self.by.clone(),
            step: step.map(ToOwned::to_owned),
            reason: self.reason.clone(),
            what,
        });
    }

    /// Something that follows from what somebody did, and is nobody's own doing.
    fn tell_of_house(&mut self, step: Option<&str>, what: What) {
        let (by, reason) = (self.by.take(), self.reason.take());
        self.tell(step, what);
        (self.by, self.reason) = (by, reason);
    }

    /// The place of a step that exists.
    fn index(&self, step: &str) -> Result<usize, WorkflowError> {
        let at = self.instance.steps.iter().position(|run| run.id == step);
        at.ok_or_else(|| WorkflowError::NoStep(step.to_owned()))
    }

    /// A step's run and its definition. Their places agree: [`Turn::new`] has looked.
    fn at(&mut self, index: usize) -> Result<(&mut StepRun, &'a Step), WorkflowError> {
        let run = self.instance.steps.get_mut(index);
        let step = self.definition.steps.get(index);
        run.zip(step).ok_or_else(|| WorkflowError::NoStep(format!("number {index}")))
    }

    fn park(
        &mut self,
        index: usize,
        reason: ParkReason,
        message: impl Into<String>,
    ) -> Result<(), WorkflowError> {
        let (now, message) = (self.now, message.into());
        let (run, step) = self.at(index)?;
        if run.parked.as_ref().is_some_and(|parked| parked.reason == reason) {
            return Ok(());
        }
        run.parked = Some(Parked { reason, message: message.clone(), since: now });
        self.tell_of_house(Some(&step.id), What::Parked { cause: reason, message });
        Ok(())
    }

    fn unpark(&mut self, index: usize) -> Result<(), WorkflowError> {
        let (run, step) = self.at(index)?;
        if let Some(parked) = run.parked.take() {
            self.tell_of_house(Some(&step.id), What::Unparked { cause: parked.reason });
        }
        Ok(())
    }

    /// Whether somebody may decide about the request, as far as being its requester goes.
    fn not_own(&self, person: &str) -> Result<(), WorkflowError> {
        if person == self.instance.requester && !self.definition.grants.requester_may_approve {
            return Err(WorkflowError::SelfApproval);
        }
        Ok(())
    }

    fn administers(&self, actor: &Actor) -> bool {
        actor.may_administer || self.definition.grants.admin.contains(&actor.id)
    }
}

/// A text that must be there, of bounded length.
fn needed(field: &'static str, text: &str) -> Result<(), WorkflowError> {
    const MOST: usize = 4096;
    if text.trim().is_empty() {
        return Err(WorkflowError::Invalid { field, why: "is needed".to_owned() });
    }
    if text.len() > MOST {
        return Err(WorkflowError::TooLarge { what: field, size: text.len(), limit: MOST });
    }
    Ok(())
}
