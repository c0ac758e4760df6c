//! What a claim under way knows: how far the code has come, what it waits for, and why it may not go on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use runtime_kernel::{Error, ErrorKind, Timestamp};
use runtime_resilience::RetryPolicy;

use crate::error::SagaError;
use crate::history::History;
use crate::instance::{Asked, Failure, ParkReason};
use crate::step::StepKey;
use crate::store::Signal;

/// Why a saga's code is not let on.
#[derive(Clone, Debug)]
pub(crate) enum Stopping {
    Cancelled(Asked),
    TimedOut,
    Draining,
}

impl Stopping {
    /// What the saga is compensated for when it is made to stop.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Cancelled(asked) => {
                let message = format!("cancelled: {}", asked.reason);
                Some(Failure::new(ErrorKind::Cancelled, "saga.cancelled", message))
            }
            Self::TimedOut => {
                Some(Failure::new(ErrorKind::Timeout, "saga.timeout", "the saga took longer than it may"))
            }
            Self::Draining => None,
        }
    }
}

/// What ends a claim at once.
#[derive(Debug)]
pub(crate) enum Fault {
    Park(Box<ParkReason>),
    Store(SagaError),
}

pub(crate) type Undoing = Box<dyn FnMut(StepKey) -> BoxFuture<'static, Result<(), Error>> + Send>;

/// A compensation the code has told of.
pub(crate) struct Compensation {
    pub(crate) position: String,
    pub(crate) name: String,
    pub(crate) policy: Option<RetryPolicy>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) run: Undoing,
}

/// Shared by a saga's code, its driver and the heartbeat.
pub(crate) struct State {
    pub(crate) history: History,
    pub(crate) visited: HashSet<String>,
    /// By when what they undo was completed; what never was comes last, and is undone first.
    pub(crate) compensations: BTreeMap<(u64, usize), Compensation>,
    pub(crate) signals: Vec<Signal>,
    /// Signals a branch is about to consume.
    pub(crate) taken: HashSet<u64>,
    pub(crate) waits: HashMap<u64, Option<Timestamp>>,
    pub(crate) next_wait: u64,
    pub(crate) busy: usize,
    pub(crate) fault: Option<Fault>,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) closed: bool,
    pub(crate) pokes: u64,
}

impl State {
    pub(crate) fn new(
        history: History,
        signals: Vec<Signal>,
        stopping: Option<Stopping>,
        pokes: u64,
    ) -> Self {
        Self {
            history,
            visited: HashSet::new(),
            compensations: BTreeMap::new(),
            signals,
            taken: HashSet::new(),
            waits: HashMap::new(),
            next_wait: 0,
            busy: 0,
            fault: None,
            stopping,
            closed: false,
            pokes,
        }
    }

    /// Whether the code waits, and nothing of it is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy == 0 && !self.waits.is_empty()
    }

    /// The earliest time something is waited for.
    pub(crate) fn next_wait(&self) -> Option<Timestamp> {
        self.waits.values().flatten().min().copied()
    }

    pub(crate) fn may_go_on(&self) -> bool {
        self.stopping.is_none() && self.history.decided.is_none() && self.fault.is_none() && !self.closed
    }
}
