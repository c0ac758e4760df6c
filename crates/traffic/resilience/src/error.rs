//! What is left when every attempt failed: the last failure, those before it, and why it stopped.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use runtime_kernel::{Deadline, Error, ErrorKind, Retry};

/// How many failures are remembered; of longer runs the latest.
const REMEMBERED: usize = 32;

/// Every attempt failed. Keeps the last failure and those before it, the latest 32 of a long run.
pub struct RetryError<E> {
    attempts: u32,
    stop: Stop,
    last: Failure<E>,
    earlier: VecDeque<Failure<E>>,
}

/// Why no further attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// The failure is not one that another attempt could cure.
    NotRetryable,
    /// All attempts the policy allows were made.
    Exhausted,
    /// The deadline passed, or would pass during the next wait.
    Deadline,
    /// Too many calls lately were retries.
    Budget,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<E> {
    /// Which attempt, from 1. 0 when the deadline had passed before the first.
    pub attempt: u32,
    /// What went wrong.
    pub cause: Cause<E>,
    /// How long was waited afterwards; `None` for the last.
    pub waited: Option<Duration>,
}

/// What went wrong in an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause<E> {
    /// It answered with this error.
    Failed(E),
    /// It took longer than the policy gives one attempt, and was dropped.
    TimedOut(Duration),
    /// The deadline of the whole passed before it was done, and it was dropped.
    Deadline,
}

impl<E: fmt::Display> fmt::Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::TimedOut(after) => write!(f, "the attempt took longer than {after:?}"),
            Self::Deadline => f.write_str("the deadline has passed"),
        }
    }
}

impl<E> RetryError<E> {
    pub(crate) fn new(stop: Stop, last: Failure<E>, earlier: VecDeque<Failure<E>>) -> Self {
        Self { attempts: last.attempt, stop, last, earlier }
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Why no further attempt was made.
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// What went wrong in the last attempt.
    pub fn last(&self) -> &Cause<E> {
        &self.last.cause
    }

    /// The last attempt's cause, given away.
    pub fn into_last(self) -> Cause<E> {
        self.last.cause
    }

    /// The remembered failures, oldest first, the last one included.
    pub fn failures(&self) -> impl Iterator<Item = &Failure<E>> {
        self.earlier.iter().chain(std::iter::once(&self.last))
    }

    /// The last error an attempt answered with, or what `otherwise` makes of a time-out.
    pub fn into_error(self, otherwise: impl FnOnce(Cause<std::convert::Infallible>) -> E) -> E {
        match self.last.cause {
            Cause::Failed(error) => error,
            Cause::TimedOut(after) => otherwise(Cause::TimedOut(after)),
            Cause::Deadline => {
                // A real answer says more than "too late": keep the latest one there is.
                let answered = self.earlier.into_iter().rev().find_map(|failure| match failure.cause {
                    Cause::Failed(error) => Some(error),
                    _ => None,
                });
                answered.unwrap_or_else(|| otherwise(Cause::Deadline))
            }
        }
    }
}

impl<E: fmt::Display> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.stop {
            Stop::NotRetryable => "not retried",
            Stop::Exhausted => "attempts used up",
            Stop::Deadline => "out of time",
            Stop::Budget => "retry budget spent",
        };
        write!(
            f,
            "{} ({why} after {} attempt{})",
            self.last.cause,
            self.attempts,
            if self.attempts == 1 { "" } else { "s" }
        )
    }
}

impl<E: fmt::Debug> fmt::Debug for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryError")
            .field("attempts", &self.attempts)
            .field("stop", &self.stop)
            .field("last", &self.last)
            .field("earlier", &self.earlier)
            .finish()
    }
}

impl<E: StdError + 'static> StdError for RetryError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.last.cause {
            Cause::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// The last error as it was, with its kind, code and verdict; a time-out becomes [`ErrorKind::Timeout`].
impl<E: Into<Error>> From<RetryError<E>> for Error {
    fn from(error: RetryError<E>) -> Self {
        let last = match error.last.cause {
            Cause::Deadline => {
                let mut earlier = error.earlier;
                earlier.pop_back().map_or(Cause::Deadline, |failure| failure.cause)
            }
            cause => cause,
        };
        match last {
            Cause::Failed(error) => error.into(),
            Cause::TimedOut(_) => {
                Error::new(ErrorKind::Timeout, "retry.attempt_timeout", "an attempt took too long")
                    .with_retry(Retry::Backoff)
            }
            Cause::Deadline => Deadline::exceeded(),
        }
    }
}

pub(crate) fn remember<E>(failures: &mut VecDeque<Failure<E>>, failure: Failure<E>) {
    if failures.len() + 1 >= REMEMBERED {
        failures.pop_front();
    }
    failures.push_back(failure);
}
