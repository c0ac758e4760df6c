//! Why a call brought no answer.

use std::time::Duration;

use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, ErrorKind, Retry};
use runtime_resilience::Rejection;

use crate::guard::Refusal;

/// Why a call brought no answer. A status such as 500 is an answer, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration is wrong.
    #[error("`client.{key}` {message}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it must be.
        message: String,
    },
    /// The request cannot be sent as it stands.
    #[error("the request is not valid: {0}")]
    Request(String),
    /// The target may not be called.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The call was not made: the circuit breaker is open, or too many are under way.
    #[error("`{host}` is not called: {rejection}")]
    Rejected {
        /// The host.
        host: String,
        /// Why.
        rejection: Rejection,
    },
    /// None of the endpoints behind the host can be called.
    #[error("no endpoint to call: {0}")]
    NoTarget(#[source] runtime_kernel::Error),
    /// An endpoint that was picked is no host and port.
    #[error("the endpoint that was picked is no host and port")]
    BadTarget,
    /// The body is a stream that has been sent: it cannot be sent again.
    #[error("the body is a stream and was sent already")]
    BodySent,
    /// The request was not recorded, or less often than it is made.
    #[error("nothing was recorded for `{request}`")]
    NoFixture {
        /// Method, host and path.
        request: String,
    },
    /// Recorded answers cannot be read.
    #[error("the recorded answers in {} cannot be read: {why}", path.display())]
    Fixtures {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// No connection came up: the name, the network or TLS.
    #[error("no connection to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The name has no address.
    #[error("`{host}` has no address")]
    Unknown {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{phase} took longer than {after:?}")]
    Timeout {
        /// What took too long.
        phase: Phase,
        /// How long was waited.
        after: Duration,
    },
    /// The deadline passed, the caller's or the call's own.
    #[error("the deadline has passed")]
    Deadline,
    /// The answer is larger than allowed.
    #[error("the answer is larger than {limit}")]
    TooLarge {
        /// The limit.
        limit: ByteSize,
    },
    /// The answer's redirects do not end.
    #[error("more than {0} redirects")]
    TooManyRedirects(u32),
    /// A redirect leads nowhere.
    #[error("the redirect's location is not valid")]
    BadRedirect,
    /// The connection broke, or what came is not HTTP.
    #[error("the exchange with `{host}` broke off")]
    Broken {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer's body is not what was asked for.
    #[error("the answer is not the JSON expected")]
    Decode(#[source] serde_json::Error),
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Connecting, TLS included.
    Connect,
    /// One attempt, up to the answer's head.
    Attempt,
    /// A pause in the answer's body.
    Read,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Attempt => "the attempt",
            Self::Read => "a pause in the answer",
        })
    }
}

impl Classify for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::Request(_) | Self::Fixtures { .. } => ErrorKind::Invalid,
            Self::Rejected { rejection, .. } => rejection.kind(),
            Self::NoTarget(error) => error.kind(),
            Self::BadTarget => ErrorKind::Internal,
            Self::BodySent => ErrorKind::Unsupported,
            Self::NoFixture { .. } => ErrorKind::NotFound,
            Self::Refused(_) => ErrorKind::Forbidden,
            Self::Connect { .. }
            | Self::Unknown { .. }
            | Self::Broken { .. }
            | Self::TooManyRedirects(_)
            | Self::BadRedirect
            | Self::Decode(_) => ErrorKind::Unavailable,
            Self::Timeout { .. } | Self::Deadline => ErrorKind::Timeout,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Config { .. } => "client.invalid_config",
            Self::Request(_) => "client.invalid_request",
            Self::Refused(_) => "client.target_refused",
            Self::Rejected { rejection, .. } => rejection.code(),
            Self::NoTarget(error) => error.code(),
            Self::BadTarget => "client.bad_target",
            Self::BodySent => "client.body_sent",
            Self::NoFixture { .. } => "client.no_fixture",
            Self::Fixtures { .. } => "client.fixtures",
            Self::Connect { .. } | Self::Unknown { .. } => "client.connect_failed",
            Self::Timeout { .. } => "client.timeout",
            Self::Deadline => "deadline.exceeded",
            Self::TooLarge { .. } => "client.response_too_large",
            Self::TooManyRedirects(_) => "client.too_many_redirects",
            Self::BadRedirect => "client.bad_redirect",
            Self::Broken { .. } => "client.broken_off",
            Self::Decode(_) => "client.unexpected_answer",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Connect { .. } | Self::Unknown { .. } | Self::Broken { .. } | Self::Timeout { .. } => {
                Retry::Backoff
            }
            Self::Rejected { rejection, .. } => rejection.retry(),
            Self::NoTarget(error) => error.retry(),
            _ => Retry::Never,
        }
    }
}

runtime_kernel::into_error!(ClientError);

impl ClientError {
    /// Whether the request cannot have reached the other side.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Unknown { .. }
                | Self::NoTarget(_)
                | Self::Timeout { phase: Phase::Connect, .. }
        )
    }

    /// Sorts out what the library reports; a refusal by the resolver lies somewhere down its chain of causes.
    pub(crate) fn from_reqwest(error: reqwest::Error, host: &str, connect_timeout: Duration) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(present) = cause {
            if let Some(refusal) = present.downcast_ref::<Refusal>() {
                return Self::Refused(refusal.clone());
            }
            cause = present.source();
        }
        let host = host.to_owned();
        // The URL may carry secrets in its query; the host is all a log needs.
        let error = error.without_url();
        match error {
            source if source.is_timeout() && source.is_connect() => {
                Self::Timeout { phase: Phase::Connect, after: connect_timeout }
            }
            source if source.is_connect() => Self::Connect { host, source },
            source if source.is_builder() => Self::Request(source.to_string()),
            source => Self::Broken { host, source },
        }
    }
}
