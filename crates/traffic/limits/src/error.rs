//! What can be wrong, and what a caller is told.

use runtime_kernel::{Classify, ErrorKind};

/// As many calls as may are under way; this one was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overloaded: {in_flight} calls are under way, and {limit} may be")]
pub struct Overloaded {
    /// How many are under way.
    pub in_flight: u32,
    /// How many may be, for a call of this criticality.
    pub limit: u32,
}

impl Classify for Overloaded {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
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
    pub key: &'static str,
    /// What it must be.
    pub message: &'static str,
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
