//! Taking down what was built, newest first.

use std::fmt;
use std::time::Duration;

use super::entry::Disposable;
use crate::lifecycle::{Outcome, guard};

/// One value's disposal.
#[derive(Debug)]
#[non_exhaustive]
pub struct Disposal {
    /// The service's name.
    pub token: &'static str,
    /// How its hook ended.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
}

/// The disposals of a container or scope, in the order in which they ran: the reverse of building.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct DisposeReport {
    /// Every value that had a hook. Values without one are dropped with the last clone of their container.
    pub disposals: Vec<Disposal>,
}

impl DisposeReport {
    /// Whether every hook did its work.
    pub fn is_clean(&self) -> bool {
        self.disposals.iter().all(|disposal| disposal.outcome.is_done())
    }
}

impl fmt::Display for DisposeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} disposed", self.disposals.len())?;
        for disposal in self.disposals.iter().filter(|disposal| !disposal.outcome.is_done()) {
            write!(f, "; `{}` {}", disposal.token, disposal.outcome)?;
        }
        Ok(())
    }
}

pub(super) async fn dispose_one(disposable: Disposable) -> Disposal {
    let Disposable { token, timeout, start } = disposable;
    // Started inside the guarded task, so that a hook that panics before its first await is caught too.
    let (outcome, elapsed) = guard(timeout, Box::pin(async move { start().await })).await;
    if !outcome.is_done() {
        tracing::error!(token, ?elapsed, %outcome, "a service was not disposed properly");
    }
    Disposal { token, outcome, elapsed }
}
