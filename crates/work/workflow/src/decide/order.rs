//! What administrators order: each with the grant, with a reason, never in favour of their own request.

use runtime_kernel::Timestamp;

use super::seats::MAX_SEATS;
use super::{Turn, needed};
use crate::command::{Actor, Order};
use crate::error::WorkflowError;
use crate::event::What;
use crate::instance::Status;
use crate::step::{How, SeatState, StepStatus};

impl Turn<'_> {
    pub(super) fn order(&mut self, actor: &Actor, order: Order, reason: String) -> Result<(), WorkflowError> {
        if !self.administers(actor) {
            return Err(WorkflowError::NotGranted { who: actor.id.clone(), what: "administer workflows" });
        }
        needed("reason", &reason)?;
        if !matches!(order, Order::Cancel {} | Order::ForceReject { .. } | Order::Deactivated { .. }) {
            self.not_own(&actor.id)?;
        }
        let while_stopped = matches!(
            order,
            Order::Release {}
                | Order::Cancel {}
                | Order::Deactivated { .. }
                | Order::ForceApprove { step: None }
                | Order::ForceReject { step: None }
        );
        if self.instance.status.is_stopped() && !while_stopped && order != (Order::Hold {}) {
            let why = "the instance is on hold";
            return Err(WorkflowError::NotAllowed { action: order.name().to_owned(), why });
        }
        self.by = Some(actor.id.clone());
        self.reason = Some(reason);
        match order {
            Order::ForceApprove { step } => self.force(step.as_deref(), true),
            Order::ForceReject { step } => self.force(step.as_deref(), false),
            Order::Reassign { step, from, to } => {
                let index = self.open_step(&step, "reassigned")?;
                self.move_seat(index, &from, &to, false)?;
                self.tell(Some(&step), What::Reassigned { from, to: to.clone() });
                self.tell_of_house(Some(&step), What::TaskOpened { holder: to });
                self.unpark(index)
            }
            Order::AddApprover { step, person } => self.add_approver(&step, &person),
            Order::RemoveApprover { step, person } => self.remove_approver(&step, &person),
            Order::SkipStep { step } => {
                let index = self.index(&step)?;
                let (run, _) = self.at(index)?;
                if !matches!(run.status, StepStatus::Pending | StepStatus::Seating | StepStatus::Active) {
                    return Err(WorkflowError::StepState { step, action: "skipped" });
                }
                self.tell(Some(&step), What::SkipOrdered);
                self.settle(index, StepStatus::Skipped, How::Admin)
            }
            Order::RestartFrom { step } => {
                self.index(&step)?;
                for dependent in self.definition.dependents(&step) {
                    let index = self.index(dependent)?;
                    self.reset(index)?;
                }
                Ok(())
            }
            Order::SetDeadline { step, due } => self.set_deadline(step.as_deref(), due),
            Order::Retry { step } => {
                let index = self.open_step(&step, "tried again")?;
                let (run, _) = self.at(index)?;
                if run.parked.is_none() {
                    return Err(WorkflowError::StepState { step, action: "tried again: it is not parked" });
                }
                self.tell(Some(&step), What::RetryOrdered);
                self.unpark(index)?;
                let (run, _) = self.at(index)?;
                if run.status == StepStatus::Seating { self.reset(index) } else { Ok(()) }
            }
            Order::Deactivated { person } => self.deactivated(&person),
            Order::Hold {} => self.hold(&actor.id),
            Order::Release {} => self.release(),
            Order::Cancel {} => self.end(Status::Cancelled),
        }
    }

    fn open_step(&mut self, step: &str, action: &'static str) -> Result<usize, WorkflowError> {
        let index = self.index(step)?;
        let (run, _) = self.at(index)?;
        if run.status.is_open() {
            return Ok(index);
        }
        Err(WorkflowError::StepState { step: step.to_owned(), action })
    }

    fn force(&mut self, step: Option<&str>, approved: bool) -> Result<(), WorkflowError> {
        let status = if approved { StepStatus::Approved } else { StepStatus::Rejected };
        if let Some(step) = step {
            let index = self.open_step(step, "forced")?;
            self.tell(Some(step), What::Forced { approved });
            return self.settle(index, status, How::Admin);
        }
        self.tell(None, What::Forced { approved });
        for index in 0..self.instance.steps.len() {
            let (run, _) = self.at(index)?;
            let undecided = run.status.is_open() || run.status == StepStatus::Pending;
            if approved && undecided {
                self.settle(index, status, How::Admin)?;
            }
        }
        self.end(if approved { Status::Approved } else { Status::Rejected })
    }

    fn add_approver(&mut self, step: &str, person: &str) -> Result<(), WorkflowError> {
        let index = self.open_step(step, "given an approver")?;
        self.may_sit(index, person)?;
        let (run, _) = self.at(index)?;
        if run.seats.len() >= MAX_SEATS {
            return Err(WorkflowError::TooLarge {
                what: "step's seats",
                size: run.seats.len(),
                limit: MAX_SEATS,
            });
        }
        let seating = run.status == StepStatus::Seating;
        self.tell(Some(step), What::ApproverAdded { person: person.to_owned() });
        if seating {
            self.instance.wants.retain(|want| want.step.as_deref() != Some(step));
            self.seat(index, &[person.to_owned()])?;
        } else {
            self.add_seat(index, person, false)?;
        }
        self.unpark(index)
    }

    fn remove_approver(&mut self, step: &str, person: &str) -> Result<(), WorkflowError> {
        let index = self.open_step(step, "rid of an approver")?;
        let (run, _) = self.at(index)?;
        let seat = run.seats.iter_mut().find(|seat| seat.holder == person && seat.state.is_undecided());
        seat.ok_or_else(|| WorkflowError::NotAssigned(person.to_owned()))?.state = SeatState::Removed;
        self.tell(Some(step), What::ApproverRemoved { person: person.to_owned() });
        self.unpark(index)
    }

    fn deactivated(&mut self, person: &str) -> Result<(), WorkflowError> {
        let mut asked = false;
        for index in 0..self.instance.steps.len() {
            let (run, step) = self.at(index)?;
            let seats = run.seats.iter_mut();
            if let Some(seat) = seats.into_iter().find(|s| s.holder == person && s.state.is_undecided()) {
                seat.vacant = true;
                asked = true;
                self.tell(Some(&step.id), What::ApproverDeactivated { person: person.to_owned() });
            }
        }
        if asked { Ok(()) } else { Err(WorkflowError::NotAssigned(person.to_owned())) }
    }

    fn set_deadline(&mut self, step: Option<&str>, due: Timestamp) -> Result<(), WorkflowError> {
        let old = match step {
            None => self.instance.due_at.replace(due),
            Some(step) => {
                let index = self.open_step(step, "given another due time")?;
                let (run, _) = self.at(index)?;
                if run.status != StepStatus::Active {
                    return Err(WorkflowError::StepState {
                        step: step.to_owned(),
                        action: "given another due time",
                    });
                }
                run.due_at.replace(due)
            }
        };
        self.tell(step, What::DeadlineChanged { due });
        self.move_clock(step, old, due)
    }
}
