//! The right to make one call, and the duty to say how it went.

use std::ops::Deref;

use runtime_kernel::{Classify, ErrorKind};

use crate::breaker::machine::Machine;

/// How a call went, as far as the breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The dependency answered; that may well be "no".
    Success,
    /// The dependency is at fault.
    Failure,
    /// It says nothing about the dependency: the caller went away, or the call was never made.
    Ignored,
}

impl Outcome {
    /// By what an error means: time-outs, unavailability and internal faults are the dependency's; what the caller did
    /// wrong is not, and a cancelled call says nothing.
    pub fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Cancelled => Self::Ignored,
            kind if kind.is_dependency_failure() => Self::Failure,
            _ => Self::Success,
        }
    }

    /// By what a result's error means.
    pub fn of<T, E: Classify>(result: &Result<T, E>) -> Self {
        result.as_ref().map_or_else(|error| Self::of_kind(error.kind()), |_| Self::Success)
    }
}

/// The right to make one call. Say how it went with [`record`](Self::record); dropped, the call counts as cancelled
/// and a half-open breaker lets another one through in its place.
#[derive(Debug)]
#[must_use = "dropped, the call counts as cancelled"]
pub struct Permit<M: Deref<Target = Machine>> {
    machine: Option<M>,
    pub(crate) pass: Pass,
}

/// A [`Permit`] that outlives the breaker it came from.
pub type OwnedPermit = Permit<std::sync::Arc<Machine>>;

/// Under which state and generation a call was let through, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) generation: u16,
    pub(crate) probe: bool,
    /// Whether the call is looked at at all.
    pub(crate) counted: bool,
    pub(crate) began: u64,
}

impl<M: Deref<Target = Machine>> Permit<M> {
    pub(crate) fn new(machine: M, pass: Pass) -> Self {
        Self { machine: Some(machine), pass }
    }

    /// The call begins only now: what was waited for since says nothing about how slow it is.
    pub(crate) fn begin_now(&mut self) {
        if let Some(machine) = &self.machine {
            self.pass.began = machine.began();
        }
    }

    /// Says how the call went.
    pub fn record(mut self, outcome: Outcome) {
        if let Some(machine) = self.machine.take() {
            machine.record(self.pass, outcome);
        }
    }
}

impl<M: Deref<Target = Machine>> Drop for Permit<M> {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.record(self.pass, Outcome::Ignored);
        }
    }
}
