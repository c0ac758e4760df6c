//! What can be wrong, and what a caller is told.

use std::borrow::Cow;
use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind};

/// The call was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Overloaded {
    /// As many are under way as may be, and nobody else may wait.
    #[error("overloaded: {in_flight} calls are under way, and {limit} may be")]
    Full {
        /// How many are under way.
        in_flight: u32,
        /// How many may be, for a call of this criticality.
        limit: u32,
    },
    /// It waited for a place, and none came free in time; or what matters more took its place in the line.
    #[error("overloaded: no place came free in {waited:?}")]
    Waited {
        /// How long it waited.
        waited: Duration,
    },
    /// More was asked for than there is: it would never fit.
    #[error("{asked} were asked for, and there are {limit} in all")]
    TooMuch {
        /// How much was asked for.
        asked: u32,
        /// How much there is.
        limit: u32,
    },
    /// Its deadline passed while it waited.
    #[error("overloaded: the deadline passed before a place came free")]
    DeadlinePassed,
}

impl Classify for Overloaded {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } | Self::Waited { .. } => ErrorKind::Unavailable,
            Self::TooMuch { .. } => ErrorKind::TooLarge,
            Self::DeadlinePassed => ErrorKind::Timeout,
        }
    }

    fn code(&self) -> &'static str {
        "limits.overloaded"
    }
}

/// Why a configuration is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {message}")]
pub struct LimitsError {
    /// The key that is wrong.
    pub key: Cow<'static, str>,
    /// What it must be.
    pub message: Cow<'static, str>,
}

impl LimitsError {
    pub(crate) fn new(key: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl Classify for LimitsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        "limits.invalid_config"
    }
}

runtime_kernel::into_error!(Overloaded, LimitsError);
