//! What a bucket answers: where it stands, or why not.

use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, Retry};

use crate::rate::Rate;

/// Where a bucket stands, after a grant or when only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    debt: u64,
    rate: Rate,
}

impl Standing {
    pub(crate) fn new(debt: u64, rate: Rate) -> Self {
        Self { debt, rate }
    }

    /// How many tokens can be had at once.
    pub fn remaining(self) -> u32 {
        let left = self.rate.tolerance().saturating_sub(self.debt) / self.rate.nanos();
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// How long until the bucket is full again.
    pub fn reset_after(self) -> Duration {
        Duration::from_nanos(self.debt)
    }

    /// The rate it was judged by.
    pub fn rate(self) -> Rate {
        self.rate
    }

    /// Whether this bucket is closer to its end than the other, as a share of what each holds.
    pub(crate) fn is_tighter_than(self, other: Self) -> bool {
        let share = |own: Self, of: Self| u128::from(own.debt) * u128::from(of.rate.tolerance());
        share(self, other) > share(other, self)
    }
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The limit is reached; the same can be had later.
    #[error("too many requests: allowed again in {retry_after:?}")]
    Exceeded {
        /// When the same can be had, if nobody else takes it first.
        retry_after: Duration,
        /// Where the bucket stands; it may hold tokens, but not as many as were asked for.
        standing: Standing,
    },
    /// More than the bucket ever holds: waiting does not help.
    #[error("{cost} is more than the {burst} this limit ever allows at once")]
    LargerThanBucket {
        /// What was asked for.
        cost: u32,
        /// What the bucket holds when full.
        burst: u32,
    },
    /// Every slot is taken by a key that is still in debt, and the limiter was told to refuse new ones.
    #[error("the limiter is tracking as many keys as it may")]
    Full {
        /// When the first of the slots this key could take is free.
        retry_after: Duration,
    },
    /// The wait for a turn would not end before the deadline, so it was not begun.
    #[error("the deadline passes before the limit allows it, in {retry_after:?}")]
    TooLate {
        /// How long it would have taken at least.
        retry_after: Duration,
    },
    /// The buckets cannot be reached, and the limiter was told to refuse then.
    #[error("the limit cannot be checked at the moment")]
    Away {
        /// When somebody will try to reach them again.
        retry_after: Duration,
    },
    /// More keys in one request than can be checked together.
    #[error("{keys} keys in one request: at most {most} can be checked together")]
    TooManyKeys {
        /// How many there were.
        keys: usize,
        /// How many there may be.
        most: usize,
    },
}

impl LimitError {
    /// When the same can be had; `None` when never.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exceeded { retry_after, .. }
            | Self::Full { retry_after }
            | Self::TooLate { retry_after }
            | Self::Away { retry_after } => Some(*retry_after),
            Self::LargerThanBucket { .. } | Self::TooManyKeys { .. } => None,
        }
    }
}

impl Classify for LimitError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Exceeded { .. } | Self::Full { .. } | Self::TooLate { .. } => ErrorKind::RateLimited,
            Self::LargerThanBucket { .. } => ErrorKind::TooLarge,
            Self::Away { .. } => ErrorKind::Unavailable,
            Self::TooManyKeys { .. } => ErrorKind::Invalid,
        }
    }

    fn retry(&self) -> Retry {
        self.retry_after().map_or(Retry::Never, Retry::After)
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Exceeded { .. } => "ratelimit.exceeded",
            Self::LargerThanBucket { .. } => "ratelimit.larger_than_bucket",
            Self::Full { .. } => "ratelimit.full",
            Self::TooLate { .. } => "ratelimit.too_late",
            Self::Away { .. } => "ratelimit.away",
            Self::TooManyKeys { .. } => "ratelimit.too_many_keys",
        }
    }
}

runtime_kernel::into_error!(LimitError);
