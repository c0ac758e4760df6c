//! The judge of sagas and workflows. Pure functions.

use std::collections::{BTreeMap, BTreeSet};

use runtime_saga::Status as SagaStatus;
use runtime_workflow::{Event, Instance, Status, What};

use crate::check::{Promise, Violation};

/// What a saga is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, every combination possible")]
pub struct Expected {
    /// It waits for a signal.
    pub signal: bool,
    /// It waits for a timer.
    pub timer: bool,
    /// It fails in the end, and is undone.
    pub fails: bool,
    /// One step's answer is lost twice.
    pub stumbles: bool,
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Its number.
    pub number: usize,
    /// Its state.
    pub status: SagaStatus,
    /// The steps its journal has as done, in order.
    pub done: Vec<String>,
    /// The compensations its journal has as done, in order.
    pub undone: Vec<String>,
    /// What the world outside has of it, one entry per idempotency key, in the order of the first calls.
    pub effects: Vec<String>,
}

/// Judges all sagas.
pub fn judge_sagas(all: &[Ended], expected: fn(usize) -> Expected) -> Vec<Violation> {
    let mut found = Vec::new();
    for saga in all {
        let Ended { number, status, done, undone, effects } = saga;
        let expected = expected(*number);
        let mut broke = |promise, about: String| {
            found.push(Violation::new(promise, format!("saga {number}: {about}")));
        };
        let end = if expected.fails { SagaStatus::Compensated } else { SagaStatus::Completed };
        if *status != end {
            broke(Promise::EverythingEnds, format!("is {} and not {}", status.as_str(), end.as_str()));
        }
        let mut steps = vec!["a", "b", "c"];
        steps.extend(expected.stumbles.then_some("d"));
        steps.extend((!expected.fails).then_some("e"));
        let mut sorted: Vec<_> = done.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        if sorted != steps {
            broke(Promise::OneEnding, format!("its journal has {done:?} as done"));
        }
        let mut back: Vec<_> = done.iter().rev().map(|step| format!("undo {step}")).collect();
        if !expected.fails {
            back.clear();
        }
        if *undone != back {
            broke(Promise::UndoneInReverse, format!("did {done:?} and undid {undone:?}"));
        }
        let (undos, acts): (Vec<_>, Vec<_>) = effects.iter().partition(|what| what.starts_with("undo "));
        if undos.iter().copied().ne(back.iter()) {
            broke(Promise::UndoneInReverse, format!("the world saw {undos:?} after {acts:?}"));
        }
        for step in steps {
            match acts.iter().filter(|what| **what == step).count() {
                0 => broke(Promise::NothingLost, format!("`{step}` has no effect")),
                1 => {}
                times => broke(Promise::EffectOnce, format!("`{step}` has {times} effects")),
            }
        }
    }
    found
}

/// How a workflow ended, and who was told that their decision was taken.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The instance.
    pub instance: Instance,
    /// Its history.
    pub events: Vec<Event>,
    /// Who was told.
    pub told: BTreeSet<String>,
    /// Whether it has to go past somebody who never decides.
    pub late: bool,
}

/// Judges all workflows.
pub fn judge_workflows(all: &[Decided]) -> Vec<Violation> {
    let mut found = Vec::new();
    for Decided { instance, events, told, late } in all {
        let mut broke = |promise, about: String| {
            found.push(Violation::new(promise, format!("{}: {about}", instance.entity_id)));
        };
        if instance.status != Status::Approved {
            broke(Promise::EverythingEnds, format!("is {}", instance.status.as_str()));
        }
        let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
        if numbers.iter().copied().ne(1..=instance.events) {
            broke(Promise::NothingLost, format!("{} events, numbered {numbers:?}", instance.events));
        }
        let count = |step: Option<&str>, what: fn(&What) -> bool| {
            events
                .iter()
                .filter(|event| what(&event.what) && (step.is_none() || event.step.as_deref() == step))
                .count()
        };
        let once: [(&str, usize, usize); 8] = [
            ("ended", count(None, |what| matches!(what, What::Approved)), 1),
            (
                "started asking peers",
                count(Some("peers"), |what| matches!(what, What::StepStarted { .. })),
                1,
            ),
            ("peers approved", count(Some("peers"), |what| matches!(what, What::StepApproved { .. })), 1),
            (
                "board left out",
                count(Some("board"), |what| matches!(what, What::StepSkipped { .. })),
                usize::from(!late),
            ),
            (
                "started asking board",
                count(Some("board"), |what| matches!(what, What::StepStarted { .. })),
                usize::from(*late),
            ),
            (
                "board approved",
                count(Some("board"), |what| matches!(what, What::StepApproved { .. })),
                usize::from(*late),
            ),
            ("due", count(Some("board"), |what| matches!(what, What::SlaBreached)), usize::from(*late)),
            (
                "escalated",
                count(Some("board"), |what| matches!(what, What::EscalationReassigned { .. })),
                usize::from(*late),
            ),
        ];
        for (name, times, expected) in once {
            if times != expected {
                broke(Promise::OneEnding, format!("{name} {times} times, not {expected}"));
            }
        }
        let mut voices: BTreeMap<&str, usize> = BTreeMap::new();
        for event in events.iter().filter(|event| matches!(event.what, What::DecisionApproved { .. })) {
            *voices.entry(event.by.as_deref().unwrap_or_default()).or_default() += 1;
        }
        for (who, times) in voices.iter().filter(|(_, times)| **times > 1) {
            broke(Promise::EffectOnce, format!("{who} decided {times} times"));
        }
        let asked = voices.keys().filter(|who| who.starts_with('p')).count();
        if (asked, voices.contains_key("cfo")) != (2, *late) {
            broke(Promise::LimitsHold, format!("decided by {voices:?}"));
        }
        for who in told.iter().filter(|who| !voices.contains_key(who.as_str())) {
            broke(Promise::NothingLost, format!("{who} was told that a decision was taken"));
        }
    }
    found
}

/// When schedules that fire every second were seen to, each in order.
#[derive(Clone, Debug, Default)]
pub struct Ticked {
    /// The first second that has to be there.
    pub from: i64,
    /// The last.
    pub to: i64,
    /// The seconds, by schedule.
    pub seconds: BTreeMap<String, Vec<i64>>,
}

/// Judges all schedules.
pub fn judge_ticks(ticked: &Ticked) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, seconds) in &ticked.seconds {
        for pair in seconds.windows(2) {
            if let [one, next] = pair
                && one == next
            {
                found.push(Violation::new(Promise::EffectOnce, format!("{name} fired {one} more than once")));
            }
        }
        let there: BTreeSet<i64> = seconds.iter().copied().collect();
        let missing: Vec<i64> = (ticked.from..=ticked.to).filter(|second| !there.contains(second)).collect();
        if !missing.is_empty() {
            found.push(Violation::new(Promise::NothingLost, format!("{name} never fired {missing:?}")));
        }
    }
    found
}
