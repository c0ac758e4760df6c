//! People that were wanted: found, or not.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Turn;
use super::seats::MAX_SEATS;
use crate::definition::EscalationAction;
use crate::error::WorkflowError;
use crate::event::What;
use crate::step::{ParkReason, SeatState, StepStatus};
use crate::timer::{Purpose, Want};

/// How often finding people is tried again by itself: after 1 s, doubling, at most 5 min.
const RETRIES: u32 = 3;

impl Turn<'_> {
    pub(super) fn found(
        &mut self,
        step: Option<&str>,
        purpose: Purpose,
        people: Vec<String>,
    ) -> Result<(), WorkflowError> {
        self.take_want(step, purpose)?;
        match (step, purpose) {
            (Some(step), Purpose::Seats) => {
                let index = self.index(step)?;
                self.found_approvers(index, people)
            }
            (step, Purpose::Escalation(nth)) => self.found_for_escalation(step, nth, people),
            (None, Purpose::Seats) => Err(WorkflowError::NothingDue),
        }
    }

    pub(super) fn not_found(
        &mut self,
        step: Option<&str>,
        purpose: Purpose,
        reason: ParkReason,
        message: String,
        again: bool,
    ) -> Result<(), WorkflowError> {
        let want = self.take_want(step, purpose)?;
        if again && want.failed < RETRIES {
            let pause = Duration::from_secs(1 << want.failed).min(Duration::from_mins(5));
            let at = self.now.checked_add(pause).map_err(|_| WorkflowError::Calendar)?;
            self.instance.wants.push(Want { failed: want.failed + 1, at, ..want });
            self.tell(step, What::ResolveFailed { why: message, retry_at: at });
            return Ok(());
        }
        match purpose {
            Purpose::Seats => match step {
                Some(step) => {
                    let index = self.index(step)?;
                    self.park(index, reason, message)
                }
                None => Ok(()),
            },
            Purpose::Escalation(_) => self.escalation_failed(step, message),
        }
    }

    fn take_want(&mut self, step: Option<&str>, purpose: Purpose) -> Result<Want, WorkflowError> {
        let wants = &mut self.instance.wants;
        let at = wants.iter().position(|want| want.step.as_deref() == step && want.purpose == purpose);
        at.map(|at| wants.remove(at)).ok_or(WorkflowError::NothingDue)
    }

    fn found_approvers(&mut self, index: usize, people: Vec<String>) -> Result<(), WorkflowError> {
        let found = people.len();
        let people = self.eligible(people);
        if people.is_empty() {
            let message = if found == 0 { "nobody was found" } else { "only the requester was found" };
            return self.park(index, ParkReason::MissingApprover, message);
        }
        if people.len() > MAX_SEATS {
            return self.park(index, ParkReason::TooManyApprovers, too_many(people.len()));
        }
        self.seat(index, &people)
    }

    fn found_for_escalation(
        &mut self,
        step: Option<&str>,
        nth: usize,
        people: Vec<String>,
    ) -> Result<(), WorkflowError> {
        let sla = match step {
            Some(step) => self.definition.step(step).and_then(|step| step.sla.as_ref()),
            None => self.definition.sla.as_ref(),
        };
        let Some(escalation) = sla.and_then(|sla| sla.escalations.get(nth)) else {
            return Err(WorkflowError::NothingDue);
        };
        if people.is_empty() {
            return self.escalation_failed(step, "nobody was found".to_owned());
        }
        let index = step.map(|step| self.index(step)).transpose()?;
        match (&escalation.action, index) {
            (EscalationAction::Notify(_), _) => {
                self.tell(step, What::EscalationNotified { people });
                Ok(())
            }
            (EscalationAction::Reassign(_), Some(index)) => self.ask_instead(index, people),
            (EscalationAction::AddApprover(_), Some(index)) => self.ask_too(index, people),
            _ => Err(WorkflowError::NothingDue),
        }
    }

    /// Those who have not decided lose their seats to people who have none.
    fn ask_instead(&mut self, index: usize, people: Vec<String>) -> Result<(), WorkflowError> {
        let people = self.eligible(people);
        let (run, step) = self.at(index)?;
        if run.status != StepStatus::Active {
            return Ok(());
        }
        if run.seats.len() + people.len() > 2 * MAX_SEATS {
            return self.escalation_failed(Some(&step.id), too_many(people.len()));
        }
        let decided = |state: SeatState| matches!(state, SeatState::Approved | SeatState::Rejected);
        let voted: BTreeSet<String> =
            run.live().filter(|seat| decided(seat.state)).map(|seat| seat.holder.clone()).collect();
        let next: Vec<String> = people.into_iter().filter(|person| !voted.contains(person)).collect();
        if next.is_empty() {
            return self.escalation_failed(Some(&step.id), "nobody else may decide".to_owned());
        }
        let undecided = run.seats.iter_mut().filter(|seat| seat.state.is_undecided());
        for seat in undecided.filter(|seat| !next.contains(&seat.holder)) {
            seat.state = SeatState::Removed;
        }
        self.tell(Some(&step.id), What::EscalationReassigned { people: next.clone() });
        self.add_missing(index, &next)
    }

    fn ask_too(&mut self, index: usize, people: Vec<String>) -> Result<(), WorkflowError> {
        let people = self.eligible(people);
        let (run, step) = self.at(index)?;
        if run.status != StepStatus::Active {
            return Ok(());
        }
        if run.seats.len() + people.len() > 2 * MAX_SEATS {
            return self.escalation_failed(Some(&step.id), too_many(people.len()));
        }
        if people.is_empty() {
            return self.escalation_failed(Some(&step.id), "only the requester was found".to_owned());
        }
        self.tell(Some(&step.id), What::EscalationAdded { people: people.clone() });
        self.add_missing(index, &people)
    }

    fn add_missing(&mut self, index: usize, people: &[String]) -> Result<(), WorkflowError> {
        for person in people {
            let (run, _) = self.at(index)?;
            let sits = run.live().any(|seat| seat.holder == *person);
            if !sits {
                self.add_seat(index, person, true)?;
            }
        }
        Ok(())
    }

    fn escalation_failed(&mut self, step: Option<&str>, why: String) -> Result<(), WorkflowError> {
        self.tell(step, What::EscalationFailed { why: why.clone() });
        match step {
            Some(step) => {
                let index = self.index(step)?;
                self.park(index, ParkReason::EscalationFailed, why)
            }
            None => Ok(()),
        }
    }
}

fn too_many(people: usize) -> String {
    format!("{people} people were found; a step asks at most {MAX_SEATS}")
}
