//! One check in a registry: runs it, keeps its standing.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime_kernel::{SharedClock, Timestamp};
use tokio::task::JoinHandle;

use crate::check::{Check, Outcome, Probe};
use crate::report::{CheckReport, Status};
use crate::{HealthConfig, HealthError};

pub(crate) struct Cell {
    check: Check,
    timeout: Duration,
    pub(crate) interval: Duration,
    failure_threshold: u32,
    success_threshold: u32,
    standing: Mutex<Standing>,
    /// Held while the check is looked at: one look at a time, however many ask.
    look: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    #[cfg(feature = "metrics")]
    gauge: Option<runtime_telemetry::Gauge>,
}

/// Where the check stands. Thresholds work on `effective`; what the last look said is kept beside it.
#[derive(Default)]
struct Standing {
    effective: Option<Status>,
    last: Option<Outcome>,
    at: Option<(Instant, Timestamp)>,
    took: Duration,
    failures: u32,
    successes: u32,
    /// Whether it has been other than unhealthy at least once.
    passed: bool,
}

impl Cell {
    pub(crate) fn new(mut check: Check, config: &HealthConfig) -> Result<Self, HealthError> {
        let said = config.of(&check.name).cloned().unwrap_or_default();
        check.critical = said.critical.unwrap_or(check.critical);
        let cell = Self {
            timeout: said.timeout.or(check.timeout).unwrap_or(config.timeout),
            interval: said.interval.or(check.interval).unwrap_or(config.interval),
            failure_threshold: said
                .failure_threshold
                .or(check.failure_threshold)
                .unwrap_or(config.failure_threshold),
            success_threshold: said
                .success_threshold
                .or(check.success_threshold)
                .unwrap_or(config.success_threshold),
            check,
            standing: Mutex::default(),
            look: tokio::sync::Mutex::new(None),
            #[cfg(feature = "metrics")]
            gauge: None,
        };
        let wrong = |message| Err(HealthError::Setting { check: cell.name().to_owned(), message });
        if cell.name().is_empty() {
            return wrong("its name must not be empty");
        }
        if cell.timeout.is_zero() || cell.interval.is_zero() {
            return wrong("timeout and interval must not be 0");
        }
        if cell.failure_threshold == 0 || cell.success_threshold == 0 {
            return wrong("thresholds must not be 0");
        }
        Ok(cell)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn set_gauge(&mut self, gauge: runtime_telemetry::Gauge) {
        self.gauge = Some(gauge);
    }

    pub(crate) fn name(&self) -> &str {
        &self.check.name
    }

    pub(crate) fn probe(&self) -> Probe {
        self.check.probe
    }

    pub(crate) fn has_passed(&self) -> bool {
        self.lock().passed
    }

    /// Looks once and takes the result into account. Ends when the check's time is up, whatever the check does.
    pub(crate) async fn run(&self, clock: &SharedClock) {
        let mut running = self.look.lock().await;
        let start = clock.now();
        let outcome = if running.as_ref().is_some_and(|task| !task.is_finished()) {
            // Aborted, yet it never came back to an await. Another one would only pile up beside it.
            Outcome::unhealthy("the last look is still stuck")
        } else {
            self.look(clock, &mut running).await
        };
        let took = clock.now().saturating_duration_since(start);
        self.record(outcome, took, (clock.now(), clock.utc()));
    }

    async fn look(&self, clock: &SharedClock, running: &mut Option<JoinHandle<()>>) -> Outcome {
        let (tell, told) = tokio::sync::oneshot::channel();
        let check = Arc::clone(&self.check.look);
        // A task of its own: a panic ends there, and a check that blocks its thread does not block this one.
        let task = tokio::spawn(async move {
            // Nobody listens once the time is up.
            let _ = tell.send(check.check().await);
        });
        let cut = AbortOnDrop(&task);
        let outcome = tokio::select! {
            biased;
            told = told => told.unwrap_or_else(|_| Outcome::unhealthy("the check panicked")),
            () = clock.sleep(self.timeout) => Outcome::unhealthy("the check took too long"),
        };
        drop(cut);
        *running = Some(task);
        outcome
    }

    fn record(&self, outcome: Outcome, took: Duration, at: (Instant, Timestamp)) {
        let mut standing = self.lock();
        let failed = outcome.status == Status::Unhealthy;
        if failed {
            (standing.failures, standing.successes) = (standing.failures.saturating_add(1), 0);
        } else {
            (standing.failures, standing.successes) = (0, standing.successes.saturating_add(1));
        }
        let was = standing.effective;
        // The first look has nothing to go by but itself.
        let now = match was {
            Some(Status::Unhealthy) if !failed && standing.successes < self.success_threshold => {
                Status::Unhealthy
            }
            Some(good)
                if failed && good != Status::Unhealthy && standing.failures < self.failure_threshold =>
            {
                good
            }
            _ => outcome.status,
        };
        standing.effective = Some(now);
        standing.passed |= now != Status::Unhealthy;
        standing.at = Some(at);
        standing.took = took;
        let message = outcome.message.clone().unwrap_or_default();
        standing.last = Some(outcome);
        drop(standing);
        self.announce(was, now, &message);
    }

    fn announce(&self, was: Option<Status>, now: Status, message: &str) {
        #[cfg(feature = "metrics")]
        if let Some(gauge) = &self.gauge {
            gauge.set(match now {
                Status::Healthy => 1.0,
                Status::Degraded => 0.5,
                Status::Unhealthy => 0.0,
            });
        }
        let (check, status) = (self.name(), now.as_str());
        match now {
            _ if was == Some(now) => {}
            Status::Healthy if was.is_none() => {}
            Status::Healthy => tracing::info!(target: "health", check, status, "check recovered"),
            Status::Degraded => tracing::warn!(target: "health", check, status, message, "check degraded"),
            Status::Unhealthy => tracing::error!(target: "health", check, status, message, "check failed"),
        }
    }

    /// The standing, and what it means for the whole: `None` for a check that does not count yet.
    pub(crate) fn report(&self, clock: &SharedClock) -> (CheckReport, Option<Status>) {
        let standing = self.lock();
        // A result nobody renews says nothing: the background service has died, or was never started again.
        let limit = self.interval.saturating_add(self.timeout).saturating_mul(3);
        let stale = standing.at.is_some_and(|(at, _)| clock.now().saturating_duration_since(at) > limit);
        let pending = standing.effective.is_none();
        let status = if stale { Status::Unhealthy } else { standing.effective.unwrap_or(Status::Unhealthy) };
        let last = standing.last.as_ref();
        let message = if pending {
            Some(Cow::Borrowed("not checked yet"))
        } else if stale {
            Some(Cow::Borrowed("the last result is too old"))
        } else {
            last.and_then(|last| last.message.clone())
        };
        let report = CheckReport {
            name: self.check.name.clone(),
            status,
            critical: self.check.critical,
            message,
            details: last.map(|last| last.details.clone()).unwrap_or_default(),
            checked_at: standing.at.map(|(_, utc)| utc),
            duration_ms: standing.at.map(|_| u64::try_from(standing.took.as_millis()).unwrap_or(u64::MAX)),
            consecutive_failures: standing.failures,
        };
        // A process that is coming up is not restarted for it.
        let silent = self.check.probe == Probe::Liveness && (pending || stale);
        let counts = if self.check.critical { status } else { status.min(Status::Degraded) };
        (report, (!silent).then_some(counts))
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check whose time is up, or whose asker went away, is cut.
struct AbortOnDrop<'a>(&'a JoinHandle<()>);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
