//! Names behind which several endpoints stand.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use runtime_kernel::{Error, Timestamp};

use crate::error::ClientError;
use crate::retry_after::retry_after;

/// The endpoints behind a name, of which each attempt of a call gets one. `runtime_discovery::Balancer` is one.
pub trait Targets: fmt::Debug + Send + Sync + 'static {
    /// An endpoint for an attempt, another than the one that failed the attempt before, if there is one.
    ///
    /// # Errors
    /// There is none to call.
    fn pick(&self, avoid: Option<&str>) -> Result<Box<dyn Target>, Error>;
}

/// An endpoint picked for one attempt. Dropped without a word, the attempt was given up.
pub trait Target: fmt::Debug + Send + 'static {
    /// `host:port`, IPv6 addresses in brackets.
    fn authority(&self) -> &str;

    /// Tells how the attempt went.
    fn done(self: Box<Self>, went: Went);
}

/// How an attempt went for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Went {
    /// It answered; a caller's mistake is an answer.
    Well,
    /// It asked to be left alone: 429, or 503 with `Retry-After`; for so long, if it said so.
    Throttled(Option<Duration>),
    /// It did not answer, also not within the attempt's or the call's own time-out, or with a status from 500. That its
    /// caller's deadline was shorter is not held against it.
    Wrong,
}

impl Went {
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let asked = retry_after(headers, now);
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Throttled(asked),
            StatusCode::SERVICE_UNAVAILABLE if asked.is_some() => Self::Throttled(asked),
            status if status.is_server_error() => Self::Wrong,
            _ => Self::Well,
        }
    }

    /// Of an attempt that brought no answer; nothing when that says nothing of the endpoint, as a deadline does that is
    /// not our own.
    pub(crate) fn of_error(error: &ClientError, own: bool) -> Option<Self> {
        let theirs = matches!(
            error,
            ClientError::Connect { .. }
                | ClientError::Unknown { .. }
                | ClientError::Broken { .. }
                | ClientError::Timeout { .. }
        ) || own && matches!(error, ClientError::Deadline);
        theirs.then_some(Self::Wrong)
    }
}
