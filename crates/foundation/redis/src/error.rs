//! What can go wrong between us and Redis.

use std::time::Duration;

use redis::{ErrorKind as Kind, ServerErrorKind as ServerKind};
use runtime_kernel::{Classify, ErrorKind, Retry};

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// The configuration is wrong.
    #[error("`redis.{key}` {message}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it must be.
        message: String,
    },
    /// It did not answer a moment ago, so it was not asked again.
    #[error("Redis is away")]
    Away {
        /// When somebody will try again.
        retry_after: Duration,
    },
    /// It could not be reached, did not answer in time, or is loading or failing over.
    #[error("Redis cannot be reached")]
    Unreachable(#[source] redis::RedisError),
    /// Every connection for blocking commands is in use.
    #[error("all connections for blocking commands are in use")]
    PoolExhausted,
    /// It answered with an error: a command or a script is wrong.
    #[error("Redis refused a command")]
    Refused(#[source] redis::RedisError),
}

impl RedisError {
    /// Whether Redis is away, rather than asked for something wrong: what a fallback is for.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Unreachable(_))
    }

    pub(crate) fn of(error: redis::RedisError) -> Self {
        let passing = match error.kind() {
            Kind::Io | Kind::ClusterConnectionNotFound | Kind::MasterNameNotFoundBySentinel => true,
            Kind::Server(kind) if will_pass(kind) => true,
            // Of several commands, that is the kind of the first or of the transaction.
            _ => error
                .clone()
                .into_server_errors()
                .is_some_and(|errors| errors.iter().filter_map(|(_, error)| error.kind()).any(will_pass)),
        };
        let lost = error.is_connection_dropped() || error.is_connection_refusal() || error.is_timeout();
        if passing || lost { Self::Unreachable(error) } else { Self::Refused(error) }
    }
}

/// Whether it is the server that cannot at the moment, rather than the command that is wrong.
fn will_pass(kind: ServerKind) -> bool {
    matches!(
        kind,
        ServerKind::BusyLoading
            | ServerKind::ClusterDown
            | ServerKind::MasterDown
            | ServerKind::TryAgain
            | ServerKind::ReadOnly
    )
}

impl Classify for RedisError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } => ErrorKind::Invalid,
            Self::Away { .. } | Self::Unreachable(_) | Self::PoolExhausted => ErrorKind::Unavailable,
            Self::Refused(_) => ErrorKind::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Away { retry_after } => Retry::After(*retry_after),
            other => other.kind().default_retry(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "redis.invalid_config",
            Self::Away { .. } => "redis.away",
            Self::Unreachable(_) => "redis.unreachable",
            Self::PoolExhausted => "redis.pool_exhausted",
            Self::Refused(_) => "redis.refused",
        }
    }
}

runtime_kernel::into_error!(RedisError);
