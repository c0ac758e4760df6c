//! What happened on the way down.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::{OsSignal, Outcome, Stage, StopReason};

/// One hook of a shutdown.
#[derive(Debug)]
#[non_exhaustive]
pub struct HookReport {
    /// The name it was registered under.
    pub name: Cow<'static, str>,
    /// The stage it belongs to.
    pub stage: Stage,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it ran.
    pub elapsed: Duration,
}

/// A whole shutdown: every hook in the order in which it ran.
#[derive(Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Why it began.
    pub reason: StopReason,
    /// Whether it was cut short: by a second signal, or by [`Shutdown::force`](super::Shutdown::force).
    pub is_forced: bool,
    /// The signal that cut it short.
    pub forced_by: Option<OsSignal>,
    /// Every hook, in the order in which it ran.
    pub hooks: Vec<HookReport>,
    /// How long the whole took, the drain delay included.
    pub elapsed: Duration,
}

impl ShutdownReport {
    /// Whether every hook did its work and nothing was forced.
    pub fn is_clean(&self) -> bool {
        !self.is_forced && self.hooks.iter().all(|hook| hook.outcome.is_done())
    }

    /// The hook of this name that ran last.
    pub fn hook(&self, name: &str) -> Option<&HookReport> {
        self.hooks.iter().rev().find(|hook| hook.name == name)
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks in {:?} ({})", self.hooks.len(), self.elapsed, self.reason)?;
        for hook in self.hooks.iter().filter(|hook| !hook.outcome.is_done()) {
            write!(f, "; {} `{}` {}", hook.stage, hook.name, hook.outcome)?;
        }
        Ok(())
    }
}
