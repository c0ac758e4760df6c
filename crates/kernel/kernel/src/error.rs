//! What went wrong, said once: kind, stable code, a message for the caller and a cause for the log.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a failure *means*, whatever crate it came from.
///
/// HTTP and gRPC status, retry or discard, circuit-breaker counting and log level follow from the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is malformed or breaks a rule; the same input will fail again.
    Invalid,
    /// No credentials, or credentials that do not hold.
    Unauthenticated,
    /// Known caller, not allowed.
    Forbidden,
    /// The thing does not exist, or the caller may not know that it does.
    NotFound,
    /// The present state refuses it: a duplicate, a lost race, a wrong transition.
    Conflict,
    /// A condition the caller attached (version, `If-Match`) does not hold.
    PreconditionFailed,
    /// Larger than a limit allows.
    TooLarge,
    /// Too much, too fast: allowed again later.
    RateLimited,
    /// The caller went away or asked to stop.
    Cancelled,
    /// The time budget ran out.
    Timeout,
    /// A dependency is down, full or starting: may work later.
    Unavailable,
    /// The thing asked for cannot be honoured here, now or later.
    Unsupported,
    /// A defect or a broken invariant on our side.
    Internal,
}

impl ErrorKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 13] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::RateLimited,
        Self::Cancelled,
        Self::Timeout,
        Self::Unavailable,
        Self::Unsupported,
        Self::Internal,
    ];

    /// The kind in `snake_case`, as metrics and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status (RFC 9110 §15; 499 is the de-facto status for a caller that went away).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Cancelled => 499,
            Self::Timeout => 504,
            Self::Unavailable => 503,
            Self::Unsupported => 501,
            Self::Internal => 500,
        }
    }

    /// The gRPC status code (`google.rpc.Code`).
    pub const fn grpc_status(self) -> i32 {
        match self {
            Self::Invalid => 3,
            Self::Unauthenticated => 16,
            Self::Forbidden => 7,
            Self::NotFound => 5,
            Self::Conflict => 10,
            Self::PreconditionFailed => 9,
            Self::TooLarge | Self::RateLimited => 8,
            Self::Cancelled => 1,
            Self::Timeout => 4,
            Self::Unavailable => 14,
            Self::Unsupported => 12,
            Self::Internal => 13,
        }
    }

    /// A short title a human can read, as problem documents carry it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid request",
            Self::Unauthenticated => "Authentication required",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::Conflict => "Conflict",
            Self::PreconditionFailed => "Precondition failed",
            Self::TooLarge => "Too large",
            Self::RateLimited => "Too many requests",
            Self::Cancelled => "Cancelled",
            Self::Timeout => "Timed out",
            Self::Unavailable => "Unavailable",
            Self::Unsupported => "Not supported",
            Self::Internal => "Internal error",
        }
    }

    /// Whether the same call may work later, when nothing more precise is known.
    pub const fn default_retry(self) -> Retry {
        match self {
            Self::RateLimited | Self::Timeout | Self::Unavailable => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// Whether a circuit breaker counts it against the dependency.
    ///
    /// A caller's mistake says nothing about the dependency's health, and neither does a cancelled call.
    pub const fn is_dependency_failure(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable | Self::Internal)
    }

    /// Whether the fault is on our side: logged at `error`, its message withheld from callers.
    pub const fn is_server_fault(self) -> bool {
        matches!(self, Self::Internal)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether and when the same call should be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not again: it will fail the same way.
    Never,
    /// At once: a lost race or a stale connection.
    Now,
    /// Not before this long from now, as the other side asked.
    After(Duration),
    /// After the policy's own delay.
    Backoff,
}

/// What an error of any crate means to the layers above, which need not know its variants.
///
/// ```
/// use runtime_kernel::{Classify, ErrorKind};
///
/// #[derive(Debug, thiserror::Error)]
/// enum QueueError {
///     #[error("the queue is full")]
///     Full,
/// }
///
/// impl Classify for QueueError {
///     fn kind(&self) -> ErrorKind { ErrorKind::Unavailable }
///     fn code(&self) -> &'static str { "queue.full" }
/// }
/// runtime_kernel::into_error!(QueueError);
///
/// let error: runtime_kernel::Error = QueueError::Full.into();
/// assert_eq!(error.code(), "queue.full");
/// assert_eq!(error.message(), "the queue is full");
/// ```
pub trait Classify {
    /// What kind of failure it is.
    fn kind(&self) -> ErrorKind;
    /// A stable, dotted, machine-readable name: `"ratelimit.exceeded"`.
    fn code(&self) -> &str;
    /// Whether to try again; by default as the kind says.
    fn retry(&self) -> Retry {
        self.kind().default_retry()
    }
}

/// One thing wrong at one place in the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Where: a JSON pointer (RFC 6901) into the body, or a parameter's name.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

/// The error that crosses crate borders: kind, stable code, a message that may be shown to a caller, and a
/// source that may not.
///
/// One word wide, so that `Result<T, Error>` stays cheap to move.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    retry: Retry,
    details: Vec<Detail>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with its stable code and a message fit for the caller's eyes.
    pub fn new(
        kind: ErrorKind,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            code: code.into(),
            message: message.into(),
            retry: kind.default_retry(),
            details: Vec::new(),
            source: None,
        }))
    }

    /// Takes over a crate's own error: its kind, code and retry; its text becomes the public message unless
    /// the fault is ours, in which case the text stays in the source.
    pub fn of<E: Classify + StdError + Send + Sync + 'static>(error: E) -> Self {
        let kind = error.kind();
        let message = if kind.is_server_fault() {
            Cow::Borrowed("an internal error occurred")
        } else {
            Cow::Owned(error.to_string())
        };
        let (code, retry) = (error.code().to_owned(), error.retry());
        Self::new(kind, code, message).with_retry(retry).with_source(error)
    }

    /// An internal fault whose cause is logged and never shown.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Internal, "internal", "an internal error occurred").with_source(source)
    }

    /// Bad input, in words that name what and where.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, "invalid", message)
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Overrides when to try again.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Adds one thing wrong at one place.
    #[must_use]
    pub fn with_detail(mut self, at: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.details.push(Detail { at: at.into(), message: message.into() });
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable, dotted code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// What a caller may read.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The places in the input that are wrong, when known.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// The message and every cause below it, joined by `: `, for logs and operators only.
    pub fn report(&self) -> String {
        let mut text = self.0.message.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }

    fn code(&self) -> &str {
        Self::code(self)
    }

    fn retry(&self) -> Retry {
        Self::retry(self)
    }
}

/// Turns a crate's own error, which implements [`Classify`] and [`std::error::Error`], into [`Error`] for `?`.
#[macro_export]
macro_rules! into_error {
    ($($name:ty),+ $(,)?) => {$(
        impl From<$name> for $crate::Error {
            fn from(error: $name) -> Self { $crate::Error::of(error) }
        }
    )+};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_fault_never_shows_its_cause() {
        let error = Error::internal("password=hunter2 refused");
        assert_eq!(error.to_string(), "an internal error occurred");
        assert_eq!(error.report(), "an internal error occurred: password=hunter2 refused");
    }

    #[test]
    fn every_kind_has_its_own_name_and_a_status_in_range() {
        let names: std::collections::HashSet<_> = ErrorKind::ALL.iter().map(|k| k.as_str()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert!((400..600).contains(&kind.http_status()), "{kind}");
            assert!((1..=16).contains(&kind.grpc_status()), "{kind}");
        }
    }

    #[test]
    fn only_what_may_pass_later_is_retried_by_default() {
        let retried: Vec<_> =
            ErrorKind::ALL.into_iter().filter(|k| k.default_retry() != Retry::Never).collect();
        assert_eq!(retried, [ErrorKind::RateLimited, ErrorKind::Timeout, ErrorKind::Unavailable]);
    }
}
