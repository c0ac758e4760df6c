//! The checks of a process: run in rounds, read by probes.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use runtime_kernel::SharedClock;

use crate::check::{HealthCheck, HealthChecks};
use crate::config::{HealthConfig, HealthError};
use crate::report::{Report, Status};
use crate::slot::{Slot, Thresholds};

/// How many late rounds in a row make the process stalled: what liveness is about.
const STALLED_ROUNDS: u32 = 5;

/// The checks of a process and what is known of them.
///
/// Probes read what the last rounds found and never run a check, so any number of probes costs nothing.
pub struct HealthRegistry {
    slots: Vec<Slot>,
    interval: Duration,
    thresholds: Thresholds,
    stalled_after: Duration,
    clock: SharedClock,
    started: AtomicBool,
    unready: AtomicBool,
    stopping: Box<dyn Fn() -> bool + Send + Sync>,
    /// The end of the last round while rounds are being run.
    beat: Mutex<Option<Instant>>,
}

impl HealthRegistry {
    /// A registry without checks and with the default settings, to add to.
    pub fn builder() -> HealthBuilder {
        HealthBuilder::default()
    }

    /// Runs every check once, all at the same time; returns when the slowest has ended or timed out.
    ///
    /// Dropping it cancels the checks of the round; their last results stay.
    pub async fn run_once(&self) {
        join_all(self.slots.iter().map(|slot| slot.run(&self.clock, self.thresholds))).await;
        let working = |slot: &Slot| slot.status().is_some_and(|status| status != Status::Unhealthy);
        if self.slots.iter().filter(|slot| slot.critical).all(working) {
            self.started.store(true, Ordering::Release);
        }
    }

    /// Runs rounds until `stop` ends, the first one now. A round under way is then cancelled.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let _running = Running::new(self);
        let rounds = async {
            loop {
                self.run_once().await;
                self.beat();
                self.clock.sleep(self.interval).await;
            }
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = rounds => {}
        }
    }

    /// Whether the process should be left running: fails only when its rounds have stalled, never because of a
    /// dependency, which a restart would not cure.
    pub fn liveness(&self) -> Report {
        let beat = *self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled =
            beat.is_some_and(|beat| self.clock.now().saturating_duration_since(beat) > self.stalled_after);
        let status = if stalled { Status::Unhealthy } else { Status::Healthy };
        Report { status, reason: stalled.then_some("stalled"), checks: Vec::new() }
    }

    /// Whether the process should get work: started, not stopping, and every critical check works.
    pub fn readiness(&self) -> Report {
        let reason = if !self.is_accepting() {
            Some("stopping")
        } else if !self.started.load(Ordering::Acquire) {
            Some("starting")
        } else {
            None
        };
        self.report(reason)
    }

    /// Whether every critical check has worked at the same time once. Stays so, whatever happens later.
    pub fn startup(&self) -> Report {
        let started = self.started.load(Ordering::Acquire);
        let mut report = self.report(None);
        if started {
            report.status = Status::Healthy;
        } else {
            report.status = Status::Unhealthy;
            report.reason = Some("starting");
        }
        report
    }

    /// Fails readiness from now on, until [`set_ready`](Self::set_ready): the first step of going away.
    pub fn set_unready(&self) {
        self.unready.store(true, Ordering::Release);
    }

    /// Takes [`set_unready`](Self::set_unready) back. A shutdown is not taken back.
    pub fn set_ready(&self) {
        self.unready.store(false, Ordering::Release);
    }

    fn is_accepting(&self) -> bool {
        !self.unready.load(Ordering::Acquire) && !(self.stopping)()
    }

    fn report(&self, reason: Option<&'static str>) -> Report {
        let checks: Vec<_> = self.slots.iter().map(Slot::report).collect();
        let of_checks = checks
            .iter()
            .map(|check| if check.critical { check.status } else { check.status.min(Status::Degraded) })
            .max()
            .unwrap_or(Status::Healthy);
        let status = if reason.is_some() { Status::Unhealthy } else { of_checks };
        Report { status, reason, checks }
    }

    fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
    }
}

impl fmt::Debug for HealthRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks: Vec<_> = self.slots.iter().map(|slot| &slot.name).collect();
        f.debug_struct("HealthRegistry").field("checks", &checks).finish_non_exhaustive()
    }
}

/// Rounds are being run: liveness expects them to go on. Ends with the future that runs them.
struct Running<'a>(&'a HealthRegistry);

impl<'a> Running<'a> {
    fn new(registry: &'a HealthRegistry) -> Self {
        registry.beat();
        Self(registry)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Collects checks and settings for a [`HealthRegistry`].
#[derive(Default)]
#[must_use]
pub struct HealthBuilder {
    checks: HealthChecks,
    config: HealthConfig,
    stopping: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl HealthBuilder {
    /// Adds a check: critical, with the default timeout, unless the calls after it say otherwise.
    pub fn check(mut self, check: impl HealthCheck) -> Self {
        self.checks.add(check);
        self
    }

    /// The check added last decides about readiness: the default.
    pub fn critical(mut self) -> Self {
        self.checks.critical();
        self
    }

    /// The check added last only degrades the process when it fails.
    pub fn optional(mut self) -> Self {
        self.checks.optional();
        self
    }

    /// The check added last may take this long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.checks.timeout(timeout);
        self
    }

    /// Sets interval, timeout and thresholds.
    pub fn config(mut self, config: HealthConfig) -> Self {
        self.config = config;
        self
    }

    /// Readiness fails whenever this says so: the process is going away.
    pub fn unready_when(mut self, stopping: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stopping = Some(Box::new(stopping));
        self
    }

    #[cfg(feature = "module")]
    pub(crate) fn checks(mut self, checks: HealthChecks) -> Self {
        self.checks = checks;
        self
    }

    /// The registry. Nothing has been checked yet, so it is neither started nor ready.
    ///
    /// # Errors
    /// [`HealthError`] for two checks of one name, and for settings of zero.
    pub fn build(self, clock: SharedClock) -> Result<HealthRegistry, HealthError> {
        self.config.check()?;
        let mut names = HashSet::new();
        let mut slots = Vec::with_capacity(self.checks.entries.len());
        for entry in self.checks.entries {
            let name = entry.check.name().into_owned();
            if !names.insert(name.clone()) {
                return Err(HealthError::Duplicate(name));
            }
            let timeout = entry.timeout.unwrap_or(self.config.timeout);
            if timeout.is_zero() {
                return Err(HealthError::Setting("timeout"));
            }
            slots.push(Slot::new(name, entry.critical, timeout, entry.check));
        }
        let slowest = slots.iter().map(|slot| slot.timeout).max().unwrap_or_default();
        Ok(HealthRegistry {
            slots,
            interval: self.config.interval,
            thresholds: Thresholds {
                failure: self.config.failure_threshold,
                success: self.config.success_threshold,
            },
            stalled_after: self.config.interval.saturating_add(slowest).saturating_mul(STALLED_ROUNDS),
            clock,
            started: AtomicBool::new(false),
            unready: AtomicBool::new(false),
            stopping: self.stopping.unwrap_or_else(|| Box::new(|| false)),
            beat: Mutex::new(None),
        })
    }
}

impl fmt::Debug for HealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBuilder").field("checks", &self.checks).finish_non_exhaustive()
    }
}
