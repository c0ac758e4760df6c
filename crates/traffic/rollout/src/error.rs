//! What can go wrong.

use runtime_kernel::{Classify, Error, ErrorKind};

/// Why a rollout was not changed, or cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloutError {
    /// There is no such rollout.
    #[error("there is no rollout `{0}`")]
    Unknown(String),
    /// It is not at a point where that can be done.
    #[error("rollout `{name}` cannot {order}: {why}")]
    Refused {
        /// Which rollout.
        name: String,
        /// What was to be done.
        order: &'static str,
        /// Why it cannot.
        why: String,
    },
    /// Somebody else changed it at the same time, several times over.
    #[error("rollout `{0}` is being changed by others")]
    Raced(String),
    /// A configuration makes no sense.
    #[error("`{key}` {message}")]
    Config {
        /// The key that is wrong.
        key: String,
        /// What it must be.
        message: String,
    },
    /// The store failed.
    #[error("rollouts cannot be read or written")]
    Store(#[source] Error),
}

impl Classify for RolloutError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::Refused { .. } | Self::Raced(_) => ErrorKind::Conflict,
            Self::Config { .. } => ErrorKind::Invalid,
            Self::Store(error) => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Unknown(_) => "rollout.unknown",
            Self::Refused { .. } => "rollout.refused",
            Self::Raced(_) => "rollout.raced",
            Self::Config { .. } => "rollout.invalid_config",
            Self::Store(error) => error.code(),
        }
    }
}

runtime_kernel::into_error!(RolloutError);
