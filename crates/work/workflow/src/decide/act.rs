//! What participants do. Only who is asked decides; only who asked takes back.

use serde_json::Value;

use super::{Turn, needed};
use crate::command::{Action, Actor};
use crate::error::WorkflowError;
use crate::event::What;
use crate::instance::{Held, Status};
use crate::step::{How, SeatState, StepStatus};

impl Turn<'_> {
    pub(super) fn act(&mut self, actor: &Actor, action: Action) -> Result<(), WorkflowError> {
        self.possible(&action)?;
        self.by = Some(actor.id.clone());
        let who = actor.id.as_str();
        match action {
            Action::Approve { step, comment } => {
                self.say(comment)?;
                self.decide_seat(who, step.as_deref(), true)
            }
            Action::Reject { step, reason } => {
                self.because(reason)?;
                self.decide_seat(who, step.as_deref(), false)
            }
            Action::RequestChanges { step, reason } => {
                self.because(reason)?;
                let (index, _) = self.own_seat(who, step.as_deref())?;
                let (_, step) = self.at(index)?;
                self.tell(Some(&step.id), What::ChangesRequested);
                self.stop(who, Status::ChangesRequested);
                Ok(())
            }
            Action::Resubmit { entity } => self.resubmit(who, entity),
            Action::Delegate { step, to, reason } => {
                self.say(reason)?;
                let (index, _) = self.own_seat(who, step.as_deref())?;
                let (_, step) = self.at(index)?;
                self.move_seat(index, who, &to, true)?;
                self.tell(Some(&step.id), What::Delegated { from: who.to_owned(), to: to.clone() });
                self.tell_of_house(Some(&step.id), What::TaskOpened { holder: to });
                Ok(())
            }
            Action::Escalate { step, reason } => {
                self.because(reason)?;
                let index = self.index(&step)?;
                let own = self.not_own(who).is_err();
                if !own && !self.administers(actor) && who != self.instance.requester {
                    self.own_seat(who, Some(&step))?;
                }
                self.escalate_next(index, own)
            }
            Action::Hold { reason } => {
                self.because(reason)?;
                let asked = self.instance.tasks().iter().any(|task| task.holder == who);
                if !asked && !self.administers(actor) {
                    return Err(WorkflowError::NotAssigned(who.to_owned()));
                }
                self.hold(who)
            }
            Action::Release {} => {
                let held = self.instance.held.as_ref().ok_or(WorkflowError::NotOnHold)?;
                if held.by != who && !self.administers(actor) {
                    return Err(WorkflowError::NotGranted {
                        who: who.to_owned(),
                        what: "release what somebody else holds",
                    });
                }
                self.release()
            }
            Action::Withdraw { reason } => {
                if who != self.instance.requester {
                    return Err(WorkflowError::NotRequester);
                }
                self.say(reason)?;
                self.end(Status::Withdrawn)
            }
            Action::Bypass { step, approve, reason } => {
                self.because(reason)?;
                self.bypass(actor, &step, approve)
            }
            Action::Comment { text } => {
                needed("text", &text)?;
                let involved = who == self.instance.requester
                    || self.administers(actor)
                    || self
                        .instance
                        .steps
                        .iter()
                        .any(|run| run.seats.iter().any(|seat| seat.holder == who || seat.first == who));
                if !involved {
                    return Err(WorkflowError::NotAssigned(who.to_owned()));
                }
                self.tell(None, What::Commented { text });
                Ok(())
            }
        }
    }

    /// What the definition allows, and what can be done while the clock is stopped.
    fn possible(&self, action: &Action) -> Result<(), WorkflowError> {
        let kind = action.kind();
        let refuse = |why| {
            let name = serde_json::to_value(kind).ok();
            let action = name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            Err(WorkflowError::NotAllowed { action, why })
        };
        if self.definition.allowed_actions.as_ref().is_some_and(|allowed| !allowed.contains(&kind)) {
            return refuse("the definition does not allow it");
        }
        let while_stopped = matches!(
            action,
            Action::Release {} | Action::Withdraw { .. } | Action::Comment { .. } | Action::Resubmit { .. }
        );
        if self.instance.status.is_stopped() && !while_stopped {
            return refuse("the instance is on hold");
        }
        Ok(())
    }

    fn because(&mut self, reason: String) -> Result<(), WorkflowError> {
        needed("reason", &reason)?;
        self.reason = Some(reason);
        Ok(())
    }

    fn say(&mut self, text: Option<String>) -> Result<(), WorkflowError> {
        text.map_or(Ok(()), |text| self.because(text))
    }

    fn decide_seat(&mut self, who: &str, step: Option<&str>, yes: bool) -> Result<(), WorkflowError> {
        let (index, number) = self.own_seat(who, step)?;
        let now = self.now;
        let (run, step) = self.at(index)?;
        let Some(seat) = run.seats.iter_mut().find(|seat| seat.number == number) else {
            return Err(WorkflowError::NotAssigned(who.to_owned()));
        };
        seat.state = if yes { SeatState::Approved } else { SeatState::Rejected };
        seat.decided_at = Some(now);
        let on_behalf_of = (seat.first != who).then(|| seat.first.clone());
        let what = if yes {
            What::DecisionApproved { seat: number, on_behalf_of }
        } else {
            What::DecisionRejected { seat: number, on_behalf_of }
        };
        self.tell(Some(&step.id), what);
        Ok(())
    }

    fn resubmit(&mut self, who: &str, entity: Value) -> Result<(), WorkflowError> {
        if who != self.instance.requester {
            return Err(WorkflowError::NotRequester);
        }
        if self.instance.status != Status::ChangesRequested {
            let why = "nobody asked for changes";
            return Err(WorkflowError::NotAllowed { action: "resubmit".to_owned(), why });
        }
        self.tell(None, What::Resubmitted);
        self.instance.entity = entity;
        for index in 0..self.instance.steps.len() {
            self.reset(index)?;
        }
        self.resume();
        Ok(())
    }

    fn bypass(&mut self, actor: &Actor, step: &str, approve: bool) -> Result<(), WorkflowError> {
        if !actor.may_bypass && !self.definition.grants.bypass.contains(&actor.id) {
            return Err(WorkflowError::NotGranted { who: actor.id.clone(), what: "bypass a step" });
        }
        self.not_own(&actor.id)?;
        let index = self.index(step)?;
        let (run, _) = self.at(index)?;
        if !run.status.is_open() {
            return Err(WorkflowError::StepState { step: step.to_owned(), action: "bypassed" });
        }
        self.tell(Some(step), What::Bypassed { approved: approve });
        let status = if approve { StepStatus::Approved } else { StepStatus::Rejected };
        self.settle(index, status, How::Bypass)
    }

    pub(super) fn hold(&mut self, who: &str) -> Result<(), WorkflowError> {
        if self.instance.status.is_stopped() {
            let why = "the instance is on hold already";
            return Err(WorkflowError::NotAllowed { action: "hold".to_owned(), why });
        }
        self.tell(None, What::Held);
        self.stop(who, Status::OnHold);
        Ok(())
    }

    fn stop(&mut self, who: &str, status: Status) {
        self.instance.held = Some(Held { since: self.now, by: who.to_owned() });
        self.instance.status = status;
    }

    pub(super) fn release(&mut self) -> Result<(), WorkflowError> {
        let held = self.instance.held.as_ref().ok_or(WorkflowError::NotOnHold)?;
        let micros = self.now.as_microsecond().saturating_sub(held.since.as_microsecond());
        self.tell(None, What::Released { held_seconds: micros / 1_000_000 });
        self.resume();
        Ok(())
    }
}
