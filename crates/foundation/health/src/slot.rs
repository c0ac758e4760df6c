//! One check, how it is run, and what is remembered of it.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime_kernel::{SharedClock, Timestamp};
use tokio::task::{AbortHandle, JoinError};

use crate::check::{Finding, HealthCheck};
use crate::report::{CheckReport, Status};

pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) critical: bool,
    pub(crate) timeout: Duration,
    pub(crate) check: Arc<dyn HealthCheck>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` before the first result.
    status: Option<Status>,
    message: Option<String>,
    failures: u32,
    successes: u32,
    took: Duration,
    checked_at: Option<Timestamp>,
    /// The last run, which may still block its thread after it was given up.
    last_run: Option<AbortHandle>,
}

/// Failures and successes in a row that turn a status.
#[derive(Clone, Copy)]
pub(crate) struct Thresholds {
    pub(crate) failure: u32,
    pub(crate) success: u32,
}

/// Ends the run of a check when the round that waits for it is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Slot {
    pub(crate) fn new(name: String, critical: bool, timeout: Duration, check: Arc<dyn HealthCheck>) -> Self {
        Self { name, critical, timeout, check, state: Mutex::default() }
    }

    pub(crate) async fn run(&self, clock: &SharedClock, thresholds: Thresholds) {
        let started = clock.now();
        let finding = self.look(clock).await;
        let took = clock.now().saturating_duration_since(started);
        self.record(finding, took, clock.utc(), thresholds);
    }

    /// In a task of its own, so that neither a panic nor a blocked thread reaches the round.
    async fn look(&self, clock: &SharedClock) -> Finding {
        if self.state().last_run.as_ref().is_some_and(|run| !run.is_finished()) {
            return Finding::unhealthy("an earlier run still hangs");
        }
        let check = Arc::clone(&self.check);
        let mut run = tokio::spawn(async move { check.check().await });
        self.state().last_run = Some(run.abort_handle());
        let guard = AbortOnDrop(run.abort_handle());
        let ended = tokio::select! {
            biased;
            ended = &mut run => Some(ended),
            () = clock.sleep(self.timeout) => None,
        };
        drop(guard);
        match ended {
            Some(Ok(Ok(finding))) => finding,
            Some(Ok(Err(error))) => {
                tracing::debug!(check = %self.name, error = %error.report(), "health check failed");
                Finding::of_error(&error)
            }
            Some(Err(error)) => {
                tracing::warn!(check = %self.name, panic = panic_text(error), "health check panicked");
                Finding::unhealthy("the check panicked")
            }
            None => Finding::unhealthy(format!("no answer within {:?}", self.timeout)),
        }
    }

    fn record(&self, finding: Finding, took: Duration, at: Timestamp, thresholds: Thresholds) {
        let mut state = self.state();
        if finding.status == Status::Unhealthy {
            state.failures = state.failures.saturating_add(1);
            state.successes = 0;
        } else {
            state.successes = state.successes.saturating_add(1);
            state.failures = 0;
        }
        let before = state.status;
        let turned = match (before, finding.status) {
            (Some(Status::Unhealthy), Status::Unhealthy) => None,
            (Some(_), Status::Unhealthy) => {
                (state.failures >= thresholds.failure).then_some(Status::Unhealthy)
            }
            (Some(Status::Unhealthy), found) => (state.successes >= thresholds.success).then_some(found),
            // The first result counts at once: there is nothing to protect from flapping yet.
            (None | Some(_), found) => Some(found),
        };
        state.status = turned.or(before);
        state.message = finding.message;
        state.took = took;
        state.checked_at = Some(at);
        let (status, message) = (state.status, state.message.clone());
        drop(state);
        if before != status && (before.is_some() || status != Some(Status::Healthy)) {
            tracing::warn!(
                check = %self.name,
                from = before.map_or("unknown", Status::as_str),
                to = status.map_or("unknown", Status::as_str),
                message,
                "health changed"
            );
        }
    }

    /// The status after thresholds; `None` before the first result.
    pub(crate) fn status(&self) -> Option<Status> {
        self.state().status
    }

    pub(crate) fn report(&self) -> CheckReport {
        let state = self.state();
        CheckReport {
            name: self.name.clone(),
            status: state.status.unwrap_or(Status::Unhealthy),
            critical: self.critical,
            message: state
                .message
                .clone()
                .or_else(|| state.status.is_none().then(|| "not checked yet".to_owned())),
            took: state.took,
            checked_at: state.checked_at,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn panic_text(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "cancelled".to_owned() };
    let payload: &dyn Any = &*payload;
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "not a text".to_owned())
}
