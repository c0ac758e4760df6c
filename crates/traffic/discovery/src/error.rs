//! What can go wrong.

use std::time::Duration;

use runtime_kernel::{Classify, Error, ErrorKind, Retry};

/// Why endpoints are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// Text that is no endpoint.
    #[error("`{text}` {why}")]
    Endpoint {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The source cannot be asked, or answered with something else.
    #[error("{what} {why}")]
    Source {
        /// Which source.
        what: String,
        /// Why.
        why: String,
    },
    /// A configuration makes no sense.
    #[error("`{key}` {message}")]
    Config {
        /// The key that is wrong.
        key: String,
        /// What it must be.
        message: String,
    },
    /// There is no such service.
    #[error("there is no service `{0}`")]
    Unknown(String),
}

impl DiscoveryError {
    pub(crate) fn source(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Source { what: what.into(), why: why.into() }
    }
}

impl Classify for DiscoveryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Endpoint { .. } | Self::Config { .. } => ErrorKind::Invalid,
            Self::Source { .. } => ErrorKind::Unavailable,
            Self::Unknown(_) => ErrorKind::NotFound,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Endpoint { .. } => "discovery.invalid_endpoint",
            Self::Source { .. } => "discovery.source_failed",
            Self::Config { .. } => "discovery.invalid_config",
            Self::Unknown(_) => "discovery.unknown_service",
        }
    }
}

/// There is nothing to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoEndpoint {
    /// The service has no endpoints.
    #[error("the service has no endpoints")]
    Empty,
    /// The source has not answered yet.
    #[error("the service's endpoints are not known yet")]
    Unknown,
    /// All have asked to be left alone.
    #[error("every endpoint has asked to be left alone for {retry_after:?}")]
    Throttled {
        /// For how long.
        retry_after: Duration,
    },
}

impl Classify for NoEndpoint {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty | Self::Unknown => ErrorKind::Unavailable,
            Self::Throttled { .. } => ErrorKind::RateLimited,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Empty => "discovery.no_endpoints",
            Self::Unknown => "discovery.not_known_yet",
            Self::Throttled { .. } => "discovery.all_throttled",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Throttled { retry_after } => Retry::After(*retry_after),
            _ => Retry::Backoff,
        }
    }
}

runtime_kernel::into_error!(DiscoveryError, NoEndpoint);

impl From<Error> for DiscoveryError {
    fn from(error: Error) -> Self {
        Self::source("the source", error.message().to_owned())
    }
}
