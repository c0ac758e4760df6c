//! What happens by itself: warnings, due times, reminders, escalations, expiries.

use runtime_kernel::Timestamp;

use super::Turn;
use crate::calendar::{add, share};
use crate::definition::{EscalationAction, Repeat, Sla};
use crate::error::WorkflowError;
use crate::event::What;
use crate::instance::Status;
use crate::step::{How, SeatState, StepStatus};
use crate::timer::{Purpose, Timer, TimerKind, Want};

impl<'a> Turn<'a> {
    pub(super) fn start_whole_clock(&mut self) -> Result<(), WorkflowError> {
        if let Some(sla) = &self.definition.sla {
            self.instance.due_at = Some(self.plan(None, sla)?.1);
        }
        Ok(())
    }

    pub(super) fn start_step_clock(&mut self, index: usize) -> Result<(), WorkflowError> {
        let (_, step) = self.at(index)?;
        if let Some(sla) = &step.sla {
            let (warn, due) = self.plan(Some(&step.id), sla)?;
            let (run, _) = self.at(index)?;
            (run.warn_at, run.due_at) = (Some(warn), Some(due));
        }
        Ok(())
    }

    fn after(&self, from: Timestamp, span: crate::definition::Span) -> Result<Timestamp, WorkflowError> {
        add(from, span, self.hours.as_ref()).ok_or(WorkflowError::Calendar)
    }

    /// Sets every timer of an SLA that starts now; says when it warns and when it is due.
    fn plan(&mut self, step: Option<&str>, sla: &Sla) -> Result<(Timestamp, Timestamp), WorkflowError> {
        let due = self.after(self.now, sla.due)?;
        let warn =
            share(self.now, sla.due, sla.warn_at, self.hours.as_ref()).ok_or(WorkflowError::Calendar)?;
        let mut timers = vec![(TimerKind::Warning, warn.min(due), 0), (TimerKind::Due, due, 0)];
        let repeats = |repeat: Option<Repeat>| repeat.map_or(0, |repeat| repeat.times);
        for (nth, reminder) in sla.reminders.iter().enumerate() {
            let at = self.after(self.now, reminder.after)?;
            timers.push((TimerKind::Reminder(nth), at, repeats(reminder.repeat)));
        }
        for (nth, escalation) in sla.escalations.iter().enumerate() {
            let at = self.after(due, escalation.after)?;
            timers.push((TimerKind::Escalation(nth), at, repeats(escalation.repeat)));
        }
        if let Some(expires) = sla.expires_after {
            timers.push((TimerKind::Expiry, self.after(due, expires)?, 0));
        }
        let timers = timers.into_iter().map(|(kind, at, left)| Timer {
            step: step.map(ToOwned::to_owned),
            kind,
            at,
            left,
        });
        self.instance.timers.extend(timers);
        Ok((warn, due))
    }

    /// Everything whose time has come, in order of its time.
    pub(super) fn tick(&mut self) -> Result<(), WorkflowError> {
        let mut fired = false;
        while !self.instance.status.is_end() && !self.instance.status.is_stopped() {
            let timers = &mut self.instance.timers;
            let due = timers.iter().enumerate().filter(|(_, timer)| timer.at <= self.now);
            let Some((place, _)) = due.min_by_key(|(place, timer)| (timer.at, *place)) else { break };
            let timer = timers.remove(place);
            fired = true;
            self.fire(timer)?;
            self.advance()?;
        }
        if fired { Ok(()) } else { Err(WorkflowError::NothingDue) }
    }

    fn fire(&mut self, timer: Timer) -> Result<(), WorkflowError> {
        let step = timer.step.clone();
        let index = step.as_deref().map(|step| self.index(step)).transpose()?;
        match timer.kind {
            TimerKind::Warning => {
                let due = match index {
                    Some(index) => self.at(index)?.0.due_at,
                    None => self.instance.due_at,
                };
                self.tell(step.as_deref(), What::SlaWarning { due });
                Ok(())
            }
            TimerKind::Due => {
                self.tell(step.as_deref(), What::SlaBreached);
                Ok(())
            }
            TimerKind::Reminder(nth) => {
                let people = self.waiting_for(step.as_deref());
                self.tell(step.as_deref(), What::Reminded { people });
                let repeat = self.sla(step.as_deref()).and_then(|sla| sla.reminders.get(nth)?.repeat);
                self.again(timer, repeat)
            }
            TimerKind::Escalation(nth) => {
                let escalation = self.sla(step.as_deref()).and_then(|sla| sla.escalations.get(nth));
                let Some(escalation) = escalation else { return Ok(()) };
                self.again(timer, escalation.repeat)?;
                self.escalate(step, index, nth, &escalation.action)
            }
            TimerKind::Expiry => match index {
                Some(index) => self.settle(index, StepStatus::Expired, How::Expiry),
                None => self.end(Status::Expired),
            },
        }
    }

    fn sla(&self, step: Option<&str>) -> Option<&'a Sla> {
        let definition = self.definition;
        match step {
            Some(step) => definition.step(step)?.sla.as_ref(),
            None => definition.sla.as_ref(),
        }
    }

    /// The next turn that has not passed yet; passed ones are made up for by the one that was just taken.
    fn again(&mut self, timer: Timer, repeat: Option<Repeat>) -> Result<(), WorkflowError> {
        let Some(repeat) = repeat else { return Ok(()) };
        let mut timer = timer;
        while timer.left > 0 {
            timer.left -= 1;
            timer.at = self.after(timer.at, repeat.every)?;
            if timer.at > self.now {
                self.instance.timers.push(timer);
                break;
            }
        }
        Ok(())
    }

    fn escalate(
        &mut self,
        step: Option<String>,
        index: Option<usize>,
        nth: usize,
        action: &EscalationAction,
    ) -> Result<(), WorkflowError> {
        let approved = match action {
            EscalationAction::AutoApprove => true,
            EscalationAction::AutoReject => false,
            EscalationAction::Notify(_)
            | EscalationAction::Reassign(_)
            | EscalationAction::AddApprover(_) => {
                let purpose = Purpose::Escalation(nth);
                let wants = &mut self.instance.wants;
                // One that is still being looked for is enough.
                if !wants.iter().any(|want| want.step == step && want.purpose == purpose) {
                    wants.push(Want { step, purpose, failed: 0, at: self.now });
                }
                return Ok(());
            }
        };
        let Some(index) = index else { return Ok(()) };
        self.tell(step.as_deref(), What::EscalationDecided { approved });
        let status = if approved { StepStatus::Approved } else { StepStatus::Rejected };
        self.settle(index, status, How::Escalation)
    }

    /// The step's next escalation, before its time. One that decides is never run early, or whoever may ask for it
    /// would decide; and a requester who could have approvers replaced would choose their own.
    pub(super) fn escalate_next(&mut self, index: usize, by_requester: bool) -> Result<(), WorkflowError> {
        let (_, step) = self.at(index)?;
        let escalations = step.sla.as_ref().map(|sla| sla.escalations.as_slice()).unwrap_or_default();
        let early = |nth: usize| match escalations.get(nth).map(|escalation| &escalation.action) {
            Some(EscalationAction::Notify(_)) => true,
            Some(EscalationAction::Reassign(_) | EscalationAction::AddApprover(_)) => !by_requester,
            Some(EscalationAction::AutoApprove | EscalationAction::AutoReject) | None => false,
        };
        let of_step = |timer: &Timer| {
            let escalates = matches!(timer.kind, TimerKind::Escalation(nth) if early(nth));
            timer.step.as_deref() == Some(&step.id) && escalates
        };
        let timers = &mut self.instance.timers;
        let planned = timers.iter().enumerate().filter(|(_, timer)| of_step(timer));
        let Some((place, _)) = planned.min_by_key(|(place, timer)| (timer.at, *place)) else {
            let why = "no escalation that may be run early is planned for the step";
            return Err(WorkflowError::NotAllowed { action: "escalate".to_owned(), why });
        };
        let mut timer = timers.remove(place);
        timer.at = timer.at.min(self.now);
        self.tell(Some(&step.id), What::EscalationRequested);
        self.by = None;
        self.reason = None;
        self.fire(timer)
    }

    fn waiting_for(&self, step: Option<&str>) -> Vec<String> {
        let steps = self.instance.steps.iter().filter(|run| step.is_none_or(|step| step == run.id));
        let active = steps.filter(|run| run.status == StepStatus::Active);
        let open = active.flat_map(|run| run.seats.iter().filter(|seat| seat.state == SeatState::Open));
        let mut people: Vec<String> = open.map(|seat| seat.holder.clone()).collect();
        people.sort_unstable();
        people.dedup();
        people
    }

    /// The clock runs again: everything that was to come comes so much later.
    pub(super) fn resume(&mut self) {
        if let Some(held) = self.instance.held.take() {
            let by = self.now.as_microsecond().saturating_sub(held.since.as_microsecond()).max(0);
            for timer in &mut self.instance.timers {
                timer.at = later(timer.at, by);
            }
            for want in &mut self.instance.wants {
                want.at = later(want.at, by);
            }
            for run in self.instance.steps.iter_mut().filter(|run| run.status.is_open()) {
                run.warn_at = run.warn_at.map(|at| later(at, by));
                run.due_at = run.due_at.map(|at| later(at, by));
            }
            self.instance.due_at = self.instance.due_at.map(|at| later(at, by));
        }
        self.set_running();
    }

    /// Timers move along with a due time; without one there was nothing but the due time to plan.
    pub(super) fn move_clock(
        &mut self,
        step: Option<&str>,
        old: Option<Timestamp>,
        due: Timestamp,
    ) -> Result<(), WorkflowError> {
        let Some(old) = old else {
            let step = step.map(ToOwned::to_owned);
            self.instance.timers.push(Timer { step, kind: TimerKind::Due, at: due, left: 0 });
            return Ok(());
        };
        let by = due.as_microsecond().saturating_sub(old.as_microsecond());
        for timer in self.instance.timers.iter_mut().filter(|timer| timer.step.as_deref() == step) {
            timer.at = later(timer.at, by);
        }
        let passed = old <= self.now
            && due > self.now
            && !self.instance.timers.iter().any(|t| t.step.as_deref() == step && t.kind == TimerKind::Due);
        if passed {
            let step = step.map(ToOwned::to_owned);
            self.instance.timers.push(Timer { step, kind: TimerKind::Due, at: due, left: 0 });
        }
        if let Some(step) = step {
            let index = self.index(step)?;
            let (run, _) = self.at(index)?;
            run.warn_at = run.warn_at.map(|at| later(at, by));
        }
        Ok(())
    }
}

fn later(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond().saturating_add(micros)).unwrap_or(at)
}
