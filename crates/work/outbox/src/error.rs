//! What can go wrong with outbox and inbox.

use runtime_kernel::{Classify, ErrorKind, Retry};

/// What can go wrong when messages are added, relayed, looked up or remembered. Never repeats a payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// A name, id or option that cannot be used.
    #[error("{key} {problem}")]
    Invalid {
        /// Which.
        key: String,
        /// Why.
        problem: String,
    },
    /// A message over the limit.
    #[error("message `{id}` has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// The id of its event.
        id: String,
        /// Its length as JSON, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The outbox in memory has no room.
    #[error("the outbox in memory is full")]
    Full,
    /// What was to be stored or published is no event.
    #[error(transparent)]
    Event(#[from] runtime_events::EventsError),
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// Something stored does not read back.
    #[error("a stored message does not read back: {0}")]
    Corrupt(String),
}

impl OutboxError {
    pub(crate) fn invalid(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { key: key.into(), problem: problem.into() }
    }
}

impl Classify for OutboxError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Full => ErrorKind::Unavailable,
            Self::Event(error) => error.kind(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Invalid { .. } => "outbox.invalid",
            Self::TooLarge { .. } => "outbox.too_large",
            Self::Full => "outbox.full",
            Self::Event(error) => error.code(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "outbox.corrupt",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Event(error) => error.retry(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(OutboxError);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for OutboxError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_lost_race())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for OutboxError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
