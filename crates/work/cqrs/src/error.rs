//! What can go wrong with commands, queries and projections, besides what their handlers say.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, Retry};

/// What can go wrong with commands, queries and projections.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CqrsError {
    /// Two handlers for one command or query, or two types of one name.
    #[error("`{0}` has two handlers")]
    Duplicate(&'static str),
    /// No handler for a command or query.
    #[error("`{0}` has no handler")]
    Unknown(&'static str),
    /// A handler takes a transaction, and the bus has no [`Transactional`](crate::Transactional) to open it.
    #[error("`{0}` is done in a transaction, and its bus opens none")]
    NoTransaction(&'static str),
    /// A command sent with an idempotency key, where nothing remembers keys.
    #[error("`{0}` has a key, and its bus remembers none")]
    NotIdempotent(&'static str),
    /// An idempotency key that cannot be used.
    #[error("an idempotency key has 1 to 255 visible ASCII characters")]
    Key,
    /// The key was used for something else.
    #[error("the idempotency key was used for another `{0}`")]
    Reused(&'static str),
    /// The same command is being done.
    #[error("the same command is being done")]
    InFlight {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The memory of answers is full.
    #[error("no more idempotency keys can be remembered")]
    Full,
    /// Something does not serialise or read back.
    #[error("`{0}` does not read back: {1}")]
    Corrupt(String, String),
    /// The event log failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Events(#[from] runtime_events::EventsError),
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// A projection refused an event.
    #[error("projection `{name}` refused event {position}: {}", .error.report())]
    Refused {
        /// Which projection.
        name: String,
        /// Which event.
        position: u64,
        /// Why.
        error: runtime_kernel::Error,
    },
}

impl Classify for CqrsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Key => ErrorKind::Invalid,
            Self::Unknown(_) | Self::NotIdempotent(_) => ErrorKind::Unsupported,
            Self::Reused(_) | Self::InFlight { .. } => ErrorKind::Conflict,
            Self::Full => ErrorKind::Unavailable,
            Self::Duplicate(_) | Self::NoTransaction(_) | Self::Corrupt(..) => ErrorKind::Internal,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Events(error) => error.kind(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::Refused { error, .. } => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Duplicate(_) => "cqrs.duplicate_handler",
            Self::Unknown(_) => "cqrs.no_handler",
            Self::NoTransaction(_) => "cqrs.no_transaction",
            Self::NotIdempotent(_) => "cqrs.not_idempotent",
            Self::Key => "cqrs.idempotency_key",
            Self::Reused(_) => "cqrs.key_reused",
            Self::InFlight { .. } => "cqrs.in_flight",
            Self::Full => "cqrs.full",
            Self::Corrupt(..) => "cqrs.corrupt",
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Events(error) => error.code(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Refused { .. } => "cqrs.refused",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::InFlight { retry_after } => Retry::After(*retry_after),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Events(error) => error.retry(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(CqrsError);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for CqrsError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_lost_race())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for CqrsError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
