//! Running one hook so that neither its failure, its panic nor its silence stops the others.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::{Clock, Error, SystemClock};

/// The future of a hook.
pub(crate) type HookFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// How a hook ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It did its work.
    Done,
    /// It answered with an error.
    Failed(Error),
    /// It panicked; the text is the panic's, where it has one.
    Panicked(String),
    /// It took longer than its own timeout and was cut.
    TimedOut,
    /// The whole budget ran out while it worked, and it was cut.
    OutOfBudget,
    /// It never ran or was cut because the end was forced.
    Forced,
}

impl Outcome {
    /// Whether it did its work.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether it was cut for taking too long.
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::TimedOut | Self::OutOfBudget)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "failed: {}", error.report()),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::TimedOut => f.write_str("cut: its own timeout passed"),
            Self::OutOfBudget => f.write_str("cut: the shutdown budget ran out"),
            Self::Forced => f.write_str("not run to its end: the end was forced"),
        }
    }
}

/// Runs a hook in a task of its own for at most `limit`: a panic is caught, and even a hook that blocks its
/// thread does not hold up the caller on a runtime with more than one.
///
/// Dropping the returned future aborts the hook.
pub(crate) async fn guard(limit: Duration, hook: HookFuture) -> (Outcome, Duration) {
    let clock = SystemClock;
    let started = clock.now();
    let task = AbortOnDropHandle::new(tokio::spawn(hook));
    let outcome = match tokio::time::timeout(limit, task).await {
        Ok(Ok(Ok(()))) => Outcome::Done,
        Ok(Ok(Err(error))) => Outcome::Failed(error),
        Ok(Err(join)) => Outcome::Panicked(panic_text(join)),
        Err(_) => Outcome::TimedOut,
    };
    (outcome, clock.now().saturating_duration_since(started))
}

/// What a task that did not end by itself says.
pub(crate) fn panic_text(join: tokio::task::JoinError) -> String {
    let Ok(panic) = join.try_into_panic() else { return "the task was aborted".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("no message", |text| text).to_owned(),
    }
}
