//! What a saga is while it rests.

use std::fmt;

use runtime_kernel::{Carried, Error, ErrorKind, Retry, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

runtime_kernel::id!(SagaId, "A saga.");

/// Where a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its steps are run, or it waits for a timer, a signal or a retry.
    Running,
    /// It failed, timed out or was cancelled, and what it did is being undone.
    Compensating,
    /// It stands still until an operator sees to it: [`Instance::parked`] says why.
    Parked,
    /// Over: every step done.
    Completed,
    /// Over: what it did has been undone, or there was nothing to undo.
    Compensated,
    /// Over: an operator ended it with a reason.
    Resolved,
}

impl Status {
    /// As stores and filters write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Resolved => "resolved",
        }
    }

    /// What [`as_str`](Self::as_str) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Running,
            Self::Compensating,
            Self::Parked,
            Self::Completed,
            Self::Compensated,
            Self::Resolved,
        ];
        all.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing more will happen.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Resolved)
    }
}

/// An error as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// Its stable code.
    pub code: String,
    /// What a caller may read.
    pub message: String,
    /// The message and every cause, for operators.
    pub report: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, code: code.to_owned(), report: message.clone(), message }
    }

    /// The error a saga's code sees: the same in a first run and in every replay. Not to be tried again, for it has been.
    pub fn to_error(&self) -> Error {
        Error::new(self.kind, self.code.clone(), self.message.clone()).with_retry(Retry::Never)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let (message, report) = (error.message().to_owned(), error.report());
        Self { kind: error.kind(), code: error.code().to_owned(), message, report }
    }
}

/// Why a saga stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkReason {
    /// A compensation failed for good. Retry it, or resolve it once it has been done by hand.
    CompensationFailed {
        /// The step it undoes.
        position: String,
        /// The compensation.
        name: String,
        /// How it failed last.
        failure: Failure,
    },
    /// The code does not do what the journal says it did. Deploy the code the saga began with, then retry.
    NonDeterminism {
        /// Where.
        position: String,
        /// What the journal has.
        recorded: String,
        /// What the code does.
        found: String,
    },
    /// No worker knows the type in the saga's version. Goes on by itself as soon as one does.
    Unregistered {
        /// `name@version`.
        kind: String,
    },
    /// The saga's own code, outside its steps, panicked.
    Panicked {
        /// What it said.
        message: String,
    },
    /// A result over the limit. It was produced, and could not be kept: what made it is run again, with the same key,
    /// when retried.
    TooLarge {
        /// Which step; empty for the saga's output.
        position: String,
        /// Its length as JSON, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Something stored or to be stored does not fit the types of the code.
    Unreadable {
        /// Which step; empty for the saga's input or output.
        position: String,
        /// What is wrong.
        message: String,
    },
    /// The journal has as many entries as it may have.
    JournalFull {
        /// How many.
        limit: u64,
    },
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CompensationFailed { position, name, failure } => {
                write!(f, "the compensation `{name}` of step {position} failed for good: {}", failure.report)
            }
            Self::NonDeterminism { position, recorded, found } => {
                write!(f, "at {position} the journal has {recorded}, and the code does {found}")
            }
            Self::Unregistered { kind } => write!(f, "no worker knows `{kind}`"),
            Self::Panicked { message } => write!(f, "the saga panicked: {message}"),
            Self::TooLarge { position, size, limit } => {
                write!(f, "the result at `{position}` has {size} bytes; at most {limit} are kept")
            }
            Self::Unreadable { position, message } => write!(f, "at `{position}`: {message}"),
            Self::JournalFull { limit } => write!(f, "the journal has {limit} entries, and no more are kept"),
        }
    }
}

/// Somebody asked for something, with a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The principal's id, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    pub reason: String,
}

/// A saga at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: SagaId,
    /// The namespace of its tenant; empty without one.
    pub tenant: String,
    /// Its type.
    pub name: String,
    /// The version it began with, and goes on under.
    pub version: u32,
    /// The caller's key, unique among the tenant's sagas of this type.
    pub key: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Why it stands still.
    pub parked: Option<ParkReason>,
    /// What it was given.
    pub input: Value,
    /// What came of it.
    pub output: Option<Value>,
    /// Why it is, or was, compensated.
    pub failure: Option<Failure>,
    /// That it shall be cancelled.
    pub cancel: Option<Asked>,
    /// Who began it, in which trace.
    pub context: Carried,
    /// When it began.
    pub created_at: Timestamp,
    /// When it is cut short and compensated.
    pub deadline: Option<Timestamp>,
    /// When something is to be done next: a timer, a retry, or a worker's lease that runs out.
    pub due_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Which worker has it.
    pub worker: Option<String>,
    /// How often it was claimed; what a claim writes under an older number is refused.
    pub fence: u64,
    /// How many signals and cancellations have come.
    pub pokes: u64,
}

/// `name@version`, as workers and stores know types.
pub(crate) fn kind_of(name: &str, version: u32) -> String {
    format!("{name}@{version}")
}
