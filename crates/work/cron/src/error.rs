//! What can go wrong with schedules.

use runtime_kernel::{Classify, ErrorKind, Retry};

use crate::expression::ParseError;
use crate::zone::UnknownZone;

/// What can go wrong when schedules are kept, read or fired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// The schedule's `when` does not parse.
    #[error("`when` of schedule `{schedule}`: {error}")]
    Expression {
        /// Which schedule.
        schedule: String,
        /// What is wrong with it, and where.
        error: ParseError,
    },
    /// There is no such time zone.
    #[error("schedule `{schedule}`: {error}")]
    Zone {
        /// Which schedule.
        schedule: String,
        /// The name.
        error: UnknownZone,
    },
    /// Another part of a schedule cannot be used.
    #[error("`{key}` of schedule `{schedule}` {problem}")]
    Invalid {
        /// Which schedule.
        schedule: String,
        /// Which part.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No such schedule, or none of this tenant.
    #[error("there is no schedule `{0}`")]
    NotFound(String),
    /// Somebody else changed it meanwhile.
    #[error("schedule `{schedule}` is at revision {found}, not {expected}")]
    Changed {
        /// Which schedule.
        schedule: String,
        /// The revision asked for.
        expected: u64,
        /// The revision it has; 0 when there is none.
        found: u64,
    },
    /// The tenant has as many schedules as it may.
    #[error("no more than {0} schedules are kept")]
    Full(u32),
    /// The action failed.
    #[error("the action failed: {0}")]
    Action(#[source] runtime_kernel::Error),
    /// The action cannot run on this store.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// A stored row does not read back.
    #[error("a stored schedule does not read back: {0}")]
    Corrupt(String),
}

impl Classify for CronError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Expression { .. } | Self::Zone { .. } | Self::Invalid { .. } => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Changed { .. } => ErrorKind::Conflict,
            Self::Full(_) => ErrorKind::TooLarge,
            Self::Action(error) => error.kind(),
            Self::Unsupported(_) => ErrorKind::Unsupported,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Expression { .. } => "cron.expression",
            Self::Zone { .. } => "cron.zone",
            Self::Invalid { .. } => "cron.invalid",
            Self::NotFound(_) => "cron.not_found",
            Self::Changed { .. } => "cron.changed",
            Self::Full(_) => "cron.full",
            Self::Action(error) => error.code(),
            Self::Unsupported(_) => "cron.unsupported",
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "cron.corrupt",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Action(error) => error.retry(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(CronError);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for CronError {
    fn is_lost_race(&self) -> bool {
        match self {
            Self::Db(error) => error.is_lost_race(),
            Self::Action(error) => runtime_db::LostRace::is_lost_race(error),
            _ => false,
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for CronError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
