//! What follows by itself: steps are weighed, settled and started until nothing more follows.

use super::Turn;
use crate::definition::StepKind;
use crate::error::WorkflowError;
use crate::event::What;
use crate::instance::Status;
use crate::step::{How, ParkReason, SeatState, StepRun, StepStatus};
use crate::timer::{Purpose, Want};

impl Turn<'_> {
    /// Runs to a fixed point. Each round settles or starts a step, or ends it.
    pub(super) fn advance(&mut self) -> Result<(), WorkflowError> {
        loop {
            if self.instance.status.is_end() || self.instance.status.is_stopped() {
                return Ok(());
            }
            for index in 0..self.instance.steps.len() {
                self.weigh(index)?;
            }
            let any = |status| self.instance.steps.iter().any(|step| step.status == status);
            if any(StepStatus::Rejected) {
                return self.end(Status::Rejected);
            }
            if any(StepStatus::Expired) {
                return self.end(Status::Expired);
            }
            if self.instance.steps.iter().all(|step| step.status.is_passed()) {
                return self.end(Status::Approved);
            }
            match self.ready() {
                Some(index) => self.start(index)?,
                None => return Ok(()),
            }
        }
    }

    /// The first step that waits for nothing any more.
    fn ready(&self) -> Option<usize> {
        let runs = &self.instance.steps;
        let passed = |id: &str| runs.iter().any(|run| run.id == id && run.status.is_passed());
        self.definition.steps.iter().zip(runs).position(|(step, run)| {
            let below = self.definition.steps.iter().filter(|other| other.level < step.level);
            run.status == StepStatus::Pending
                && below.map(|other| &other.id).chain(&step.depends_on).all(|id| passed(id))
        })
    }

    /// Reads a step's conditions, and has its approvers found if it is to be decided by people.
    fn start(&mut self, index: usize) -> Result<(), WorkflowError> {
        let now = self.now;
        let entity = self.instance.entity.clone();
        let (run, step) = self.at(index)?;
        run.status = StepStatus::Seating;
        let holds = |condition: Option<&crate::definition::Condition>| {
            condition.map(|condition| condition.holds(&entity)).transpose()
        };
        let verdict = (|| {
            let applies = step.kind != StepKind::Conditional || holds(step.when.as_ref())? == Some(true);
            if !applies || holds(step.skip_when.as_ref())? == Some(true) {
                return Ok(Some(StepStatus::Skipped));
            }
            let approved = holds(step.auto_approve_when.as_ref())? == Some(true);
            Ok::<_, crate::definition::ConditionError>(approved.then_some(StepStatus::Approved))
        })();
        match verdict {
            Ok(Some(status)) => self.settle(index, status, How::Condition),
            Ok(None) => {
                let step = Some(step.id.clone());
                self.instance.wants.push(Want { step, purpose: Purpose::Seats, failed: 0, at: now });
                Ok(())
            }
            Err(error) => self.park(index, ParkReason::ConditionError, error.to_string()),
        }
    }

    /// Counts an active step's voices: settles it when they are enough or can no longer be, and says when it is stuck.
    fn weigh(&mut self, index: usize) -> Result<(), WorkflowError> {
        let now = self.now;
        let (run, step) = self.at(index)?;
        if run.status != StepStatus::Active {
            return Ok(());
        }
        let count = |state: fn(SeatState) -> bool| run.live().filter(|seat| state(seat.state)).count();
        let (yes, no) = (count(|s| s == SeatState::Approved), count(|s| s == SeatState::Rejected));
        let (left, all) = (count(SeatState::is_undecided), run.live().count());
        let vacant = run.live().find(|seat| seat.vacant && seat.state.is_undecided());
        let vacant = vacant.map(|seat| seat.holder.clone());
        let needed = step.requirement.needed(all);
        if all > 0 && yes >= needed {
            return self.settle(index, StepStatus::Approved, How::Requirement);
        }
        if yes + left < needed && no > 0 {
            return self.settle(index, StepStatus::Rejected, How::Requirement);
        }
        if step.kind == StepKind::Sequential && !run.live().any(|seat| seat.state == SeatState::Open) {
            let next = run.seats.iter_mut().find(|seat| seat.state == SeatState::Waiting);
            if let Some(seat) = next {
                seat.state = SeatState::Open;
                seat.opened_at = Some(now);
                let holder = seat.holder.clone();
                self.tell_of_house(Some(&step.id), What::TaskOpened { holder });
            }
        }
        if let Some(person) = vacant {
            return self.park(index, ParkReason::DeactivatedUser, format!("{person} is asked, and is gone"));
        }
        if all == 0 {
            return self.park(index, ParkReason::MissingApprover, "nobody is asked any more");
        }
        if yes + left < needed {
            let message = format!("{needed} must agree, and {} can", yes + left);
            return self.park(index, ParkReason::QuorumUnreachable, message);
        }
        let (run, _) = self.at(index)?;
        let mended = run.parked.as_ref().is_some_and(|parked| {
            matches!(
                parked.reason,
                ParkReason::DeactivatedUser | ParkReason::MissingApprover | ParkReason::QuorumUnreachable
            )
        });
        if mended { self.unpark(index) } else { Ok(()) }
    }

    /// Ends a step; what was planned for it no longer happens.
    pub(super) fn settle(&mut self, index: usize, status: StepStatus, how: How) -> Result<(), WorkflowError> {
        let now = self.now;
        let (run, step) = self.at(index)?;
        run.status = status;
        run.settled = (status != StepStatus::Cancelled).then_some(how);
        run.parked = None;
        run.ended_at = Some(now);
        for seat in run.seats.iter_mut().filter(|seat| seat.state.is_undecided()) {
            seat.state = SeatState::Closed;
        }
        self.forget(&step.id);
        let what = match status {
            StepStatus::Approved => What::StepApproved { how },
            StepStatus::Rejected => What::StepRejected { how },
            StepStatus::Skipped => What::StepSkipped { how },
            StepStatus::Expired => What::StepExpired,
            StepStatus::Cancelled => What::StepCancelled,
            StepStatus::Pending | StepStatus::Seating | StepStatus::Active => return Ok(()),
        };
        self.tell_of_house(Some(&step.id), what);
        Ok(())
    }

    /// Ends the instance, and with it every step that is not settled.
    pub(super) fn end(&mut self, status: Status) -> Result<(), WorkflowError> {
        for index in 0..self.instance.steps.len() {
            let (run, _) = self.at(index)?;
            if matches!(run.status, StepStatus::Pending | StepStatus::Seating | StepStatus::Active) {
                self.settle(index, StepStatus::Cancelled, How::Admin)?;
            }
        }
        self.instance.status = status;
        self.instance.ended_at = Some(self.now);
        self.instance.held = None;
        self.instance.timers.clear();
        self.instance.wants.clear();
        let what = match status {
            Status::Approved => What::Approved,
            Status::Rejected => What::Rejected,
            Status::Cancelled => What::Cancelled,
            Status::Expired => What::Expired,
            Status::Withdrawn => What::Withdrawn,
            Status::Pending | Status::InProgress | Status::OnHold | Status::ChangesRequested => return Ok(()),
        };
        self.tell(None, what);
        Ok(())
    }

    /// Lets a step begin anew, without what it knew.
    pub(super) fn reset(&mut self, index: usize) -> Result<(), WorkflowError> {
        let (run, step) = self.at(index)?;
        if run.status != StepStatus::Pending {
            *run = StepRun::new(&step.id);
            self.forget(&step.id);
            self.tell_of_house(Some(&step.id), What::StepRestarted);
        }
        Ok(())
    }

    /// Pending until somebody has been asked.
    pub(super) fn set_running(&mut self) {
        let asked = self.instance.steps.iter().any(|step| step.started_at.is_some());
        self.instance.status = if asked { Status::InProgress } else { Status::Pending };
    }

    fn forget(&mut self, step: &str) {
        self.instance.timers.retain(|timer| timer.step.as_deref() != Some(step));
        self.instance.wants.retain(|want| want.step.as_deref() != Some(step));
    }
}
