//! What can go wrong with jobs.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, Retry};

use crate::flow::FlowError;
use crate::job::JobId;
use crate::links::BatchId;

/// The code of [`JobsError::LeaseLost`].
pub(crate) const LEASE_LOST: &str = "jobs.lease_lost";

/// What can go wrong when jobs are enqueued, looked up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// A job that cannot be accepted.
    #[error("the job is not valid: {0}")]
    Invalid(String),
    /// A payload over the limit.
    #[error("the payload has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Its length as JSON, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// No such job, or none of this tenant.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The job's state does not allow it.
    #[error("job {id} is {state} and cannot be {action}")]
    WrongState {
        /// Which job.
        id: JobId,
        /// Where it stands.
        state: &'static str,
        /// What was asked.
        action: &'static str,
    },
    /// No such batch, or none of this tenant.
    #[error("there is no batch {0}")]
    NoBatch(BatchId),
    /// Every job of the batch has ended, or it was cancelled: it counts no more jobs.
    #[error("batch {0} is over and takes no more jobs")]
    BatchOver(BatchId),
    /// The queue holds more than it should, and refuses more.
    #[error("the queue `{queue}` is full: {depth} jobs wait, the next in line for {age:?}")]
    Busy {
        /// Which queue.
        queue: String,
        /// Jobs that wait, counted no further than one above the bound.
        depth: u64,
        /// How long the next in line has waited.
        age: Duration,
        /// How long to wait before trying again.
        wait: Duration,
    },
    /// Jobs of a flow that wait for each other in a way that cannot be.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The store has no such operation.
    #[error("this store has no {0}")]
    Unsupported(&'static str),
    /// The job's lease has run out, so what its attempt wants to keep is refused.
    #[error("the lease of job {0} is another's")]
    LeaseLost(JobId),
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// A stored row does not read back.
    #[error("a stored job does not read back: {0}")]
    Corrupt(String),
}

impl Classify for JobsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::Flow(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::NotFound(_) | Self::NoBatch(_) => ErrorKind::NotFound,
            Self::WrongState { .. } | Self::LeaseLost(_) | Self::BatchOver(_) => ErrorKind::Conflict,
            Self::Busy { .. } => ErrorKind::Unavailable,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Invalid(_) => "jobs.invalid",
            Self::TooLarge { .. } => "jobs.payload_too_large",
            Self::NotFound(_) => "jobs.not_found",
            Self::WrongState { .. } => "jobs.wrong_state",
            Self::LeaseLost(_) => LEASE_LOST,
            Self::NoBatch(_) => "jobs.no_batch",
            Self::BatchOver(_) => "jobs.batch_over",
            Self::Flow(_) => "jobs.flow_invalid",
            Self::Busy { .. } => "jobs.busy",
            Self::Unsupported(_) => "jobs.unsupported",
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "jobs.corrupt",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy { wait, .. } => Retry::After(*wait),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(JobsError);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for JobsError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_lost_race())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for JobsError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
