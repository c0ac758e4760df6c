//! What can go wrong with workflows.

use runtime_kernel::{Classify, Error, ErrorKind, Retry};

use crate::definition::{ConditionError, Problem, VersionState};
use crate::instance::{InstanceId, Status};

/// What can go wrong when workflows are defined, started and moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The text is no definition.
    #[error("the definition cannot be read at {at}: {why}")]
    Unreadable {
        /// The line or the path.
        at: String,
        /// Why.
        why: String,
    },
    /// The definition cannot be registered.
    #[error("the definition has {} problem(s): {}", .0.len(), list(.0))]
    Definition(Vec<Problem>),
    /// A field of a request is missing or wrong.
    #[error("`{field}` {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why.
        why: String,
    },
    /// Something is larger than a limit.
    #[error("the {what} has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// No active definition fits.
    #[error("no active workflow for {0}")]
    NoDefinition(String),
    /// No such version.
    #[error("there is no version {version} of `{code}`")]
    NoVersion {
        /// The definition.
        code: String,
        /// The version.
        version: u32,
    },
    /// The version's state does not allow it.
    #[error("version {version} of `{code}` is {} and cannot become {}", from.as_str(), to.as_str())]
    VersionState {
        /// The definition.
        code: String,
        /// The version.
        version: u32,
        /// Where it stands.
        from: VersionState,
        /// What was asked.
        to: VersionState,
    },
    /// The entity is being decided about already.
    #[error("instance {0} decides about this entity already")]
    ActiveInstance(InstanceId),
    /// No such instance, or none of this tenant.
    #[error("there is no instance {0}")]
    NotFound(InstanceId),
    /// The instance has ended.
    #[error("the instance has ended: it is {}", .0.as_str())]
    Ended(Status),
    /// The instance is no longer as the caller has seen it.
    #[error("the instance has revision {found}, not {expected}")]
    Revision {
        /// What the caller has seen.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Others kept changing the instance.
    #[error("others changed the instance again and again; try again")]
    Contended,
    /// No such step.
    #[error("there is no step `{0}`")]
    NoStep(String),
    /// The step's state does not allow it.
    #[error("step `{step}` cannot be {action} now")]
    StepState {
        /// Which.
        step: String,
        /// What was asked.
        action: &'static str,
    },
    /// The instance's state or its definition does not allow it.
    #[error("`{action}` is not possible: {why}")]
    NotAllowed {
        /// What was asked.
        action: String,
        /// Why.
        why: &'static str,
    },
    /// The actor is not asked.
    #[error("`{0}` is not asked to decide here")]
    NotAssigned(String),
    /// The actor is asked later.
    #[error("others are asked before `{0}`")]
    NotYourTurn(String),
    /// The actor is asked in several steps.
    #[error("name the step: several wait for this decision ({})", .0.join(", "))]
    WhichStep(Vec<String>),
    /// Only the requester may.
    #[error("only the requester may do this")]
    NotRequester,
    /// The clock is not stopped.
    #[error("the instance is not on hold")]
    NotOnHold,
    /// The actor lacks a grant.
    #[error("`{who}` has no grant to {what}")]
    NotGranted {
        /// Who.
        who: String,
        /// What for.
        what: &'static str,
    },
    /// Nobody has been proved to be acting.
    #[error("nobody is signed in")]
    NobodyActs,
    /// Requesters do not decide about their own requests.
    #[error("the requester may not decide about their own request")]
    SelfApproval,
    /// One person, one voice.
    #[error("`{0}` has a voice in this step already")]
    AlreadyAsked(String),
    /// The action id was used for something else.
    #[error("this action id was used for another action")]
    ActionReused,
    /// Nothing is due.
    #[error("nothing is due")]
    NothingDue,
    /// A condition cannot be answered.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// A time lies beyond the calendar.
    #[error("a time lies beyond the calendar's end")]
    Calendar,
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// What is stored does not read back.
    #[error("a stored workflow does not read back: {0}")]
    Corrupt(String),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Classify for WorkflowError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable { .. }
            | Self::Definition(_)
            | Self::Invalid { .. }
            | Self::WhichStep(_)
            | Self::Condition(_)
            | Self::Calendar => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::NoDefinition(_) | Self::NoVersion { .. } | Self::NotFound(_) | Self::NoStep(_) => {
                ErrorKind::NotFound
            }
            Self::VersionState { .. }
            | Self::ActiveInstance(_)
            | Self::Ended(_)
            | Self::StepState { .. }
            | Self::NotAllowed { .. }
            | Self::NotYourTurn(_)
            | Self::NotOnHold
            | Self::AlreadyAsked(_)
            | Self::ActionReused
            | Self::NothingDue
            | Self::Contended => ErrorKind::Conflict,
            Self::Revision { .. } => ErrorKind::PreconditionFailed,
            Self::NotAssigned(_) | Self::NotRequester | Self::NotGranted { .. } | Self::SelfApproval => {
                ErrorKind::Forbidden
            }
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::NobodyActs => ErrorKind::Unauthenticated,
            Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Unreadable { .. } => "workflow.unreadable",
            Self::Definition(_) => "workflow.definition",
            Self::Invalid { .. } => "workflow.invalid",
            Self::TooLarge { .. } => "workflow.too_large",
            Self::NoDefinition(_) => "workflow.no_definition",
            Self::NoVersion { .. } => "workflow.no_version",
            Self::VersionState { .. } => "workflow.version_state",
            Self::ActiveInstance(_) => "workflow.active_instance_exists",
            Self::NotFound(_) => "workflow.not_found",
            Self::Ended(_) => "workflow.ended",
            Self::Revision { .. } => "workflow.revision",
            Self::Contended => "workflow.contended",
            Self::NoStep(_) => "workflow.no_step",
            Self::StepState { .. } => "workflow.step_state",
            Self::NotAllowed { .. } => "workflow.not_allowed",
            Self::NotAssigned(_) => "workflow.not_assigned",
            Self::NotYourTurn(_) => "workflow.not_your_turn",
            Self::WhichStep(_) => "workflow.which_step",
            Self::NotRequester => "workflow.not_requester",
            Self::NotOnHold => "workflow.not_on_hold",
            Self::NotGranted { .. } => "workflow.not_granted",
            Self::NobodyActs => "workflow.nobody_acts",
            Self::SelfApproval => "workflow.self_approval",
            Self::AlreadyAsked(_) => "workflow.already_asked",
            Self::ActionReused => "workflow.action_reused",
            Self::NothingDue => "workflow.nothing_due",
            Self::Condition(_) => "workflow.condition",
            Self::Calendar => "workflow.calendar",
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "workflow.corrupt",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Contended => Retry::Backoff,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

impl From<WorkflowError> for Error {
    /// Each problem of a definition becomes a detail with its place.
    fn from(error: WorkflowError) -> Self {
        let problems =
            if let WorkflowError::Definition(problems) = &error { problems.clone() } else { Vec::new() };
        problems.into_iter().fold(Self::of(error), |error, problem| {
            error.with_detail(problem.path, format!("{}: {}", problem.code.as_str(), problem.message))
        })
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for WorkflowError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_lost_race())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for WorkflowError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
