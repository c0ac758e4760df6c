//! What can go wrong with jobs.

use runtime_kernel::{Classify, ErrorKind, Retry};

use crate::job::JobId;

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
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::WrongState { .. } | Self::LeaseLost(_) => ErrorKind::Conflict,
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
            Self::LeaseLost(_) => "jobs.lease_lost",
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "jobs.corrupt",
        }
    }

    fn retry(&self) -> Retry {
        match self {
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
