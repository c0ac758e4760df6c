//! The calls a breaker looks at, counted without locks.

use crate::breaker::config::Window;
use crate::breaker::count::LastCalls;
use crate::breaker::time::LastTime;

/// What a call was like, for the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

/// Either kind of window. Marks of another generation than the present one are not counted.
#[derive(Debug)]
pub(crate) enum Marks {
    Calls(LastCalls),
    Time(LastTime),
}

impl Marks {
    pub(crate) fn new(window: Window) -> Self {
        match window {
            Window::Calls(calls) => Self::Calls(LastCalls::new(calls)),
            Window::Time(time) => Self::Time(LastTime::new(time)),
        }
    }

    /// Whether [`record`](Self::record) needs the time.
    pub(crate) fn needs_time(&self) -> bool {
        matches!(self, Self::Time(_))
    }

    /// Adds a mark and says what the window holds then; nothing when the mark comes too late.
    pub(crate) fn record(&self, generation: u16, now: u64, mark: Mark) -> Option<Totals> {
        match self {
            Self::Calls(calls) => calls.record(generation, mark),
            Self::Time(time) => time.record(generation, now, mark),
        }
    }

    pub(crate) fn totals(&self, now: u64) -> Totals {
        match self {
            Self::Calls(calls) => calls.totals(),
            Self::Time(time) => time.totals(now),
        }
    }

    /// Empties the window and begins a generation. Called by one at a time.
    pub(crate) fn reset(&self, generation: u16) {
        match self {
            Self::Calls(calls) => calls.reset(generation),
            Self::Time(time) => time.reset(generation),
        }
    }
}
