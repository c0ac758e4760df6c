//! Who sits in a step: one person, one seat.

use std::collections::BTreeSet;

use super::Turn;
use crate::definition::StepKind;
use crate::error::WorkflowError;
use crate::event::What;
use crate::step::{Seat, SeatState, StepStatus};

/// People a step may ask.
pub(crate) const MAX_SEATS: usize = 500;
/// How often a decision may be passed on.
const MAX_HOPS: u8 = 5;

impl Turn<'_> {
    /// Everybody once, in order, without the requester unless granted.
    pub(super) fn eligible(&self, people: Vec<String>) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let fits = |person: &String| self.not_own(person).is_ok() && !person.is_empty();
        people.into_iter().filter(|person| fits(person) && seen.insert(person.clone())).collect()
    }

    /// Asks the people: the step's clock starts.
    pub(super) fn seat(&mut self, index: usize, people: &[String]) -> Result<(), WorkflowError> {
        let now = self.now;
        let (run, step) = self.at(index)?;
        run.status = StepStatus::Active;
        run.started_at = Some(now);
        self.start_step_clock(index)?;
        let (run, _) = self.at(index)?;
        let (approvers, due) = (people.to_vec(), run.due_at);
        self.tell_of_house(Some(&step.id), What::StepStarted { approvers, due });
        for person in people {
            self.add_seat(index, person, false)?;
        }
        self.set_running();
        Ok(())
    }

    /// One more voice; in a sequential step the last.
    pub(super) fn add_seat(
        &mut self,
        index: usize,
        person: &str,
        escalated: bool,
    ) -> Result<(), WorkflowError> {
        let now = self.now;
        let (run, step) = self.at(index)?;
        let open = step.kind != StepKind::Sequential || !run.live().any(|seat| seat.state.is_undecided());
        let number = u32::try_from(run.seats.len()).unwrap_or(u32::MAX).saturating_add(1);
        run.seats.push(Seat {
            number,
            holder: person.to_owned(),
            first: person.to_owned(),
            state: if open { SeatState::Open } else { SeatState::Waiting },
            hops: 0,
            escalated,
            vacant: false,
            opened_at: open.then_some(now),
            decided_at: None,
        });
        if open {
            self.tell_of_house(Some(&step.id), What::TaskOpened { holder: person.to_owned() });
        }
        Ok(())
    }

    /// Whether a person may get a seat: one person, one voice, and none about their own request.
    pub(super) fn may_sit(&mut self, index: usize, person: &str) -> Result<(), WorkflowError> {
        if person.trim().is_empty() || person.len() > 256 {
            return Err(WorkflowError::Invalid { field: "person", why: "must be 1 to 256 bytes".to_owned() });
        }
        self.not_own(person)?;
        let (run, _) = self.at(index)?;
        if run.live().any(|seat| seat.holder == person) {
            return Err(WorkflowError::AlreadyAsked(person.to_owned()));
        }
        Ok(())
    }

    /// Moves an undecided seat to somebody else.
    pub(super) fn move_seat(
        &mut self,
        index: usize,
        from: &str,
        to: &str,
        delegate: bool,
    ) -> Result<(), WorkflowError> {
        self.may_sit(index, to)?;
        let now = self.now;
        let (run, _) = self.at(index)?;
        let seat = run.seats.iter_mut().find(|seat| seat.holder == from && seat.state.is_undecided());
        let seat = seat.ok_or_else(|| WorkflowError::NotAssigned(from.to_owned()))?;
        if delegate {
            if seat.hops >= MAX_HOPS {
                let why = "the decision was passed on five times already";
                return Err(WorkflowError::NotAllowed { action: "delegate".to_owned(), why });
            }
            seat.hops += 1;
        }
        to.clone_into(&mut seat.holder);
        seat.vacant = false;
        if seat.state == SeatState::Open {
            seat.opened_at = Some(now);
        }
        Ok(())
    }

    /// The place of an active step and the seat somebody may decide there.
    pub(super) fn own_seat(&mut self, who: &str, step: Option<&str>) -> Result<(usize, u32), WorkflowError> {
        let mut found = Vec::new();
        let mut later = false;
        if let Some(step) = step {
            self.index(step)?;
        }
        for (index, run) in self.instance.steps.iter().enumerate() {
            let named = step.is_none_or(|step| step == run.id);
            if !named || run.status != StepStatus::Active {
                continue;
            }
            for seat in run.seats.iter().filter(|seat| seat.holder == who) {
                match seat.state {
                    SeatState::Open => found.push((index, seat.number, run.id.clone())),
                    SeatState::Waiting => later = true,
                    SeatState::Approved | SeatState::Rejected | SeatState::Removed | SeatState::Closed => {}
                }
            }
        }
        match found.as_slice() {
            [] if later => Err(WorkflowError::NotYourTurn(who.to_owned())),
            [] => Err(WorkflowError::NotAssigned(who.to_owned())),
            [(index, number, _)] => {
                self.not_own(who)?;
                Ok((*index, *number))
            }
            several => Err(WorkflowError::WhichStep(several.iter().map(|(.., id)| id.clone()).collect())),
        }
    }
}
