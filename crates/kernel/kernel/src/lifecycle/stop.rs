//! Being told to stop, and why.

use std::borrow::Cow;
use std::fmt;

use tokio_util::sync::CancellationToken;

use super::{OsSignal, Stage};

/// Tells its holders to stop. Cheap to clone; once stopped it stays stopped.
#[derive(Clone, Debug)]
pub struct StopSignal(CancellationToken);

impl StopSignal {
    /// A signal that nobody fires, for running a part by hand.
    pub fn never() -> Self {
        Self(CancellationToken::new())
    }

    pub(super) const fn of(token: CancellationToken) -> Self {
        Self(token)
    }

    /// Waits until it is time to stop; returns at once when that has passed. Cancel-safe.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }

    /// Whether it is time to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Runs a future until it ends or it is time to stop, whichever comes first: `None` when stopped.
    ///
    /// The future is dropped when stopped.
    pub async fn until<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.0.run_until_cancelled(work).await
    }
}

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The operating system or an operator asked.
    Signal(OsSignal),
    /// The program asked, and says why.
    Requested(Cow<'static, str>),
    /// A part that must run could not be kept running.
    ServiceGaveUp {
        /// Which.
        service: String,
        /// Its last failure, for operators.
        message: String,
    },
    /// A start hook failed before anything served.
    StartFailed {
        /// Which.
        hook: String,
        /// The stable code of the failure.
        code: String,
        /// The failure, for operators.
        message: String,
    },
}

impl StopReason {
    /// Whether the end was wanted, not forced on the process by a failure.
    pub const fn is_wanted(&self) -> bool {
        matches!(self, Self::Signal(_) | Self::Requested(_))
    }
}

impl From<&'static str> for StopReason {
    fn from(reason: &'static str) -> Self {
        Self::Requested(Cow::Borrowed(reason))
    }
}

impl From<String> for StopReason {
    fn from(reason: String) -> Self {
        Self::Requested(Cow::Owned(reason))
    }
}

impl From<OsSignal> for StopReason {
    fn from(signal: OsSignal) -> Self {
        Self::Signal(signal)
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "{signal} received"),
            Self::Requested(reason) => f.write_str(reason),
            Self::ServiceGaveUp { service, message } => write!(f, "service `{service}` gave up: {message}"),
            Self::StartFailed { hook, message, .. } => write!(f, "start hook `{hook}` failed: {message}"),
        }
    }
}

/// One token per stage, cancelled when the stage begins.
#[derive(Debug, Default)]
pub(super) struct StageTokens {
    unready: CancellationToken,
    drain: CancellationToken,
    intake: CancellationToken,
    work: CancellationToken,
    flush: CancellationToken,
    close: CancellationToken,
}

impl StageTokens {
    pub(super) const fn of(&self, stage: Stage) -> &CancellationToken {
        match stage {
            Stage::Unready => &self.unready,
            Stage::Drain => &self.drain,
            Stage::Intake => &self.intake,
            Stage::Work => &self.work,
            Stage::Flush => &self.flush,
            Stage::Close => &self.close,
        }
    }
}
