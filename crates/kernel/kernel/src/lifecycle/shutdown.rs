//! The shutdown of a process: who is told, in what order, and how long each may take.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::hook::{HookFuture, Outcome, guard};
use super::stop::StageTokens;
use super::{HookReport, OsSignal, ShutdownConfig, ShutdownReport, Stage, StopReason, StopSignal};
use crate::{Clock, Error, SystemClock};

/// Where hooks are registered, where the end is asked for, and what runs it.
///
/// Cheap to clone; every clone is the same shutdown. Stages run in order ([`Stage`]); the hooks of a stage run one
/// after another, the last registered first. A hook that fails, panics or hangs is reported and the rest still run.
/// A hook registered while the shutdown runs is run too, before its stage is left, or next when that has passed.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    config: Mutex<ShutdownConfig>,
    stages: StageTokens,
    triggered: CancellationToken,
    forced: CancellationToken,
    reason: OnceLock<StopReason>,
    forced_by: OnceLock<Option<OsSignal>>,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    waiting: VecDeque<Hook>,
    ended: bool,
}

struct Hook {
    stage: Stage,
    name: Cow<'static, str>,
    timeout: Duration,
    start: Box<dyn FnOnce() -> HookFuture + Send>,
}

impl Shutdown {
    /// A shutdown with nothing registered and the default configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets budget and drain delay. Takes effect when the shutdown begins.
    pub fn configure(&self, config: ShutdownConfig) {
        *lock(&self.0.config) = config;
    }

    /// Registers what has to happen on the way down, with the longest it may take.
    ///
    /// A hook behind which others wait is never given more than three quarters of the budget that is left, so that
    /// one that hangs leaves time for the rest. After the shutdown has ended a registration is refused with a
    /// warning in the log, because nothing is left to run it.
    pub fn hook<F, W>(&self, stage: Stage, name: impl Into<Cow<'static, str>>, timeout: Duration, hook: F)
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let hook = Hook { stage, name: name.into(), timeout, start: Box::new(|| Box::pin(hook())) };
        let mut hooks = lock(&self.0.hooks);
        if hooks.ended {
            tracing::warn!(hook = %hook.name, %stage, "registered after the shutdown had ended: not run");
            return;
        }
        hooks.waiting.push_back(hook);
    }

    /// Asks for the end. The first reason counts; asking again changes nothing.
    pub fn trigger(&self, reason: impl Into<StopReason>) {
        // Losing this race is the documented "asking again".
        let _ = self.0.reason.set(reason.into());
        self.0.triggered.cancel();
    }

    /// Takes note of a signal: the first asks for the end, a second one forces it.
    pub fn signalled(&self, signal: OsSignal) {
        if self.is_triggered() {
            self.force(Some(signal));
        } else {
            self.trigger(signal);
        }
    }

    /// Ends the shutdown at once: the running hook is cut, the others are reported as not run.
    pub fn force(&self, signal: Option<OsSignal>) {
        let _ = self.0.forced_by.set(signal);
        self.trigger("forced");
        self.0.forced.cancel();
    }

    /// Fires when a stage begins, or at once when it has begun.
    pub fn signal(&self, stage: Stage) -> StopSignal {
        StopSignal::of(self.0.stages.of(stage).clone())
    }

    /// Fires when the end has been asked for, before any stage begins.
    pub fn requested(&self) -> StopSignal {
        StopSignal::of(self.0.triggered.clone())
    }

    /// Whether the end has been asked for.
    pub fn is_triggered(&self) -> bool {
        self.0.triggered.is_cancelled()
    }

    /// Waits until the end is asked for, then goes down through every stage.
    ///
    /// Takes at most the drain delay plus the budget, plus 10 ms for each hook that comes when the budget is used up. To be run once: a second run finds no hooks.
    /// Dropping the future aborts the hook that runs; the rest stay registered for another run.
    pub async fn run(&self) -> ShutdownReport {
        self.0.triggered.cancelled().await;
        let clock = SystemClock;
        let started = clock.now();
        let config = lock(&self.0.config).clone();
        let mut budget = Budget { end: started + config.timeout };
        let mut reports = Vec::new();
        for stage in Stage::ALL {
            if self.0.forced.is_cancelled() {
                break;
            }
            tracing::info!(%stage, "shutting down");
            self.0.stages.of(stage).cancel();
            if stage == Stage::Drain && !config.drain_delay.is_zero() {
                tokio::select! {
                    () = self.0.forced.cancelled() => break,
                    () = tokio::time::sleep(config.drain_delay) => {}
                }
                budget.end += config.drain_delay;
            }
            while let Some((hook, alone)) = self.next(stage) {
                reports.push(self.run_hook(hook, alone, &budget).await);
                if self.0.forced.is_cancelled() {
                    break;
                }
            }
        }
        reports.extend(self.close());
        for stage in Stage::ALL {
            // Whoever still waits for a later stage must not outlive a forced end.
            self.0.stages.of(stage).cancel();
        }
        ShutdownReport {
            reason: self.0.reason.get().cloned().unwrap_or_else(|| "stopped".into()),
            is_forced: self.0.forced_by.get().is_some(),
            forced_by: self.0.forced_by.get().copied().flatten(),
            hooks: reports,
            elapsed: clock.now().saturating_duration_since(started),
        }
    }

    /// The next hook due at `stage` or before, and whether it is the last one known.
    fn next(&self, stage: Stage) -> Option<(Hook, bool)> {
        let mut hooks = lock(&self.0.hooks);
        let due = hooks.waiting.iter().enumerate().filter(|(_, hook)| hook.stage <= stage);
        let (at, _) = due.min_by_key(|(at, hook)| (hook.stage, std::cmp::Reverse(*at)))?;
        let hook = hooks.waiting.remove(at)?;
        Some((hook, hooks.waiting.is_empty()))
    }

    async fn run_hook(&self, hook: Hook, alone: bool, budget: &Budget) -> HookReport {
        let Hook { stage, name, timeout, start } = hook;
        let share = if alone { budget.left() } else { budget.left() / 4 * 3 }.max(LEAST);
        let (outcome, elapsed) = tokio::select! {
            biased;
            () = self.0.forced.cancelled() => (Outcome::Forced, Duration::ZERO),
            // Started inside the guarded task, so that a hook that panics before its first await is caught too.
            ended = guard(timeout.min(share), Box::pin(async move { start().await })) => ended,
        };
        let outcome = match outcome {
            Outcome::TimedOut if share < timeout => Outcome::OutOfBudget,
            outcome => outcome,
        };
        if outcome.is_done() {
            tracing::debug!(hook = %name, %stage, ?elapsed, "shutdown hook done");
        } else {
            tracing::error!(hook = %name, %stage, ?elapsed, %outcome, "shutdown hook did not do its work");
        }
        HookReport { name, stage, outcome, elapsed }
    }

    /// Refuses further hooks and reports those a forced end left over.
    fn close(&self) -> Vec<HookReport> {
        let mut hooks = lock(&self.0.hooks);
        hooks.ended = true;
        let mut left: Vec<_> = std::mem::take(&mut hooks.waiting).into();
        left.reverse();
        left.sort_by_key(|hook| hook.stage);
        left.into_iter()
            .map(|Hook { stage, name, .. }| HookReport {
                name,
                stage,
                outcome: Outcome::Forced,
                elapsed: Duration::ZERO,
            })
            .collect()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("reason", &self.0.reason.get())
            .field("waiting", &lock(&self.0.hooks).waiting.len())
            .finish_non_exhaustive()
    }
}

/// What a hook gets when nothing is left of the budget: enough for one that has no need to wait.
const LEAST: Duration = Duration::from_millis(10);

struct Budget {
    end: std::time::Instant,
}

impl Budget {
    fn left(&self) -> Duration {
        self.end.saturating_duration_since(SystemClock.now())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
