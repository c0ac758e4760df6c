//! A journal, folded by position: what a replay looks up.

use std::collections::{BTreeMap, HashMap, HashSet};

use runtime_kernel::Timestamp;
use serde_json::Value;

use crate::instance::Failure;
use crate::journal::{Entry, What};

/// What kinds of operations there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Step,
    Timer,
    Signal,
    Join,
}

impl Op {
    pub(crate) fn describe(self, name: &str) -> String {
        match self {
            Self::Step => format!("step `{name}`"),
            Self::Timer => format!("timer `{name}`"),
            Self::Signal => format!("signal `{name}`"),
            Self::Join => "a join".to_owned(),
        }
    }
}

/// One operation, as far as it has come.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) op: Op,
    pub(crate) name: String,
    /// Failed attempts.
    pub(crate) attempts: u32,
    /// When it goes on: the next attempt, the timer's end, the end of waiting.
    pub(crate) until: Option<Timestamp>,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done { seq: u64, result: Value },
    GaveUp { seq: u64, failure: Failure },
    Received(Value),
    TimedOut,
}

/// One compensation, as far as it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undo {
    pub(crate) done: bool,
    pub(crate) attempts: u32,
    pub(crate) retry_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) ops: HashMap<String, Recorded>,
    pub(crate) undo: HashMap<String, Undo>,
    /// The compensations owed, by when what they undo was completed.
    pub(crate) owed: BTreeMap<u64, (String, String)>,
    /// Signals that were consumed.
    pub(crate) received: HashSet<u64>,
    /// Why steps are being undone.
    pub(crate) decided: Option<Failure>,
    pub(crate) last: u64,
}

impl History {
    pub(crate) fn of(journal: Vec<Entry>) -> Self {
        let mut history = Self::default();
        for entry in journal {
            history.add(entry);
        }
        history
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        let Entry { seq, position, what, .. } = entry;
        self.last = seq;
        match what {
            What::StepDone { name, result, compensation } => {
                self.owe(seq, &position, compensation);
                self.op(position, Op::Step, name).outcome = Some(Outcome::Done { seq, result });
            }
            What::StepFailed { name, attempt, retry_at, .. } => {
                let step = self.op(position, Op::Step, name);
                (step.attempts, step.until) = (attempt, Some(retry_at));
            }
            What::StepGaveUp { name, failure, compensation, .. } => {
                self.owe(seq, &position, compensation);
                self.op(position, Op::Step, name).outcome = Some(Outcome::GaveUp { seq, failure });
            }
            What::TimerSet { name, until } => self.op(position, Op::Timer, name).until = Some(until),
            What::SignalAwaited { name, until } => self.op(position, Op::Signal, name).until = Some(until),
            What::SignalReceived { name, signal, payload } => {
                self.received.insert(signal);
                self.op(position, Op::Signal, name).outcome = Some(Outcome::Received(payload));
            }
            What::SignalTimedOut { name } => {
                self.op(position, Op::Signal, name).outcome = Some(Outcome::TimedOut);
            }
            What::Compensating { failure } => self.decided = Some(failure),
            What::CompensationFailed { attempt, retry_at, .. } => {
                let undo = self.undo.entry(position).or_default();
                (undo.attempts, undo.retry_at) = (attempt, retry_at);
            }
            What::Retried { .. } => {
                for undo in self.undo.values_mut() {
                    (undo.attempts, undo.retry_at) = (0, None);
                }
            }
            What::Resolved { .. } if position.is_empty() => {}
            What::Compensated { .. } | What::Resolved { .. } => {
                self.undo.entry(position).or_default().done = true;
            }
        }
    }

    fn op(&mut self, position: String, op: Op, name: String) -> &mut Recorded {
        let new = || Recorded { op, name, attempts: 0, until: None, outcome: None };
        self.ops.entry(position).or_insert_with(new)
    }

    fn owe(&mut self, seq: u64, position: &str, compensation: Option<String>) {
        if let Some(name) = compensation {
            self.owed.insert(seq, (position.to_owned(), name));
        }
    }
}
