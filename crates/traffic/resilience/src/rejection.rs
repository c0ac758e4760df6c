//! Why a call was not made, or not waited for.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use runtime_kernel::{Classify, Error, ErrorKind, Retry};

/// Why a call was not made, or not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The dependency has failed too often lately.
    #[error("the circuit breaker is open")]
    BreakerOpen {
        /// When calls are let through again; not known when it was forced open.
        retry_after: Option<Duration>,
    },
    /// As many calls as may are under way, and as many as may wait.
    #[error("too many calls are under way")]
    BulkheadFull,
    /// No place became free in time.
    #[error("no place became free within {waited:?}")]
    BulkheadTimeout {
        /// How long was waited.
        waited: Duration,
    },
    /// The call took longer than it may, and was dropped.
    #[error("the call took longer than {after:?}")]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// Nobody waits for the answer any more.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// Too many calls lately were retries.
    #[error("the retry budget is used up")]
    BudgetSpent,
}

impl Rejection {
    /// When it makes sense to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BreakerOpen { retry_after } => *retry_after,
            _ => None,
        }
    }
}

impl Classify for Rejection {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BreakerOpen { .. }
            | Self::BulkheadFull
            | Self::BulkheadTimeout { .. }
            | Self::BudgetSpent => ErrorKind::Unavailable,
            Self::TimedOut { .. } | Self::DeadlinePassed => ErrorKind::Timeout,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::BreakerOpen { retry_after: Some(wait) } => Retry::After(*wait),
            Self::DeadlinePassed | Self::BudgetSpent => Retry::Never,
            _ => Retry::Backoff,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BreakerOpen { .. } => "breaker.open",
            Self::BulkheadFull => "bulkhead.full",
            Self::BulkheadTimeout { .. } => "bulkhead.timeout",
            Self::TimedOut { .. } => "call.timed_out",
            Self::DeadlinePassed => "deadline.exceeded",
            Self::BudgetSpent => "retry.budget_spent",
        }
    }
}

runtime_kernel::into_error!(Rejection);

/// What comes of a guarded call: it was turned away, or it failed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded<E> {
    /// It was not made, or not waited for.
    Rejected(Rejection),
    /// It was made and failed.
    Failed(E),
}

impl<E> From<Rejection> for Guarded<E> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl<E: fmt::Display> fmt::Display for Guarded<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for Guarded<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl<E: Classify> Classify for Guarded<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(rejection) => rejection.kind(),
            Self::Failed(error) => error.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Rejected(rejection) => rejection.retry(),
            Self::Failed(error) => error.retry(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Failed(error) => error.code(),
        }
    }
}

impl<E: Into<Error>> From<Guarded<E>> for Error {
    fn from(guarded: Guarded<E>) -> Self {
        match guarded {
            Guarded::Rejected(rejection) => rejection.into(),
            Guarded::Failed(error) => error.into(),
        }
    }
}
