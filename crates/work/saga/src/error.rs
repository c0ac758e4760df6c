//! What can go wrong with sagas.

use runtime_kernel::{Classify, ErrorKind, Retry};

use crate::instance::{ParkReason, SagaId};

/// What can go wrong when sagas are started, looked up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// Something that cannot be accepted.
    #[error("the saga is not valid: {0}")]
    Invalid(String),
    /// An input or a signal over the limit.
    #[error("the {what} has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// `input` or `signal`.
        what: &'static str,
        /// Its length as JSON, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// More signals than one saga takes.
    #[error("the saga {id} has had {limit} signals and takes no more")]
    TooManySignals {
        /// Which saga.
        id: SagaId,
        /// The limit.
        limit: u64,
    },
    /// No such saga, or none of this tenant.
    #[error("there is no saga {0}")]
    NotFound(SagaId),
    /// No such type of saga in this process.
    #[error("there is no type of saga `{0}` here")]
    UnknownType(String),
    /// The saga's state does not allow it.
    #[error("saga {id} is {state} and cannot be {action}")]
    WrongState {
        /// Which saga.
        id: SagaId,
        /// Where it stands.
        state: &'static str,
        /// What was asked.
        action: &'static str,
    },
    /// The code does not do what the journal says it did.
    #[error("at {position} the journal has {recorded}, and the code does {found}")]
    NonDeterminism {
        /// Where.
        position: String,
        /// What the journal has.
        recorded: String,
        /// What the code does.
        found: String,
    },
    /// The saga's lease is another's, so what is written under it is refused.
    #[error("the lease of saga {0} is another's")]
    LeaseLost(SagaId),
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// A stored row does not read back.
    #[error("a stored saga does not read back: {0}")]
    Corrupt(String),
}

impl Classify for SagaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::NotFound(_) | Self::UnknownType(_) => ErrorKind::NotFound,
            Self::WrongState { .. } | Self::LeaseLost(_) | Self::TooManySignals { .. } => ErrorKind::Conflict,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::NonDeterminism { .. } | Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Invalid(_) => "saga.invalid",
            Self::TooLarge { .. } => "saga.too_large",
            Self::TooManySignals { .. } => "saga.too_many_signals",
            Self::NotFound(_) => "saga.not_found",
            Self::UnknownType(_) => "saga.unknown_type",
            Self::WrongState { .. } => "saga.wrong_state",
            Self::NonDeterminism { .. } => "saga.non_determinism",
            Self::LeaseLost(_) => "saga.lease_lost",
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "saga.corrupt",
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

runtime_kernel::into_error!(SagaError);

impl ParkReason {
    /// The typed error behind a reason that has one.
    pub fn as_error(&self) -> Option<SagaError> {
        let Self::NonDeterminism { position, recorded, found } = self else { return None };
        let (position, recorded, found) = (position.clone(), recorded.clone(), found.clone());
        Some(SagaError::NonDeterminism { position, recorded, found })
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for SagaError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_lost_race())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for SagaError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
