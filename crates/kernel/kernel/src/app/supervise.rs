//! Keeping a service running: restarts with growing waits, and giving up.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{Run, Service, SupervisionConfig};
use crate::lifecycle::panic_text;

/// How a service ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceEnd {
    /// It stopped when told to.
    Stopped,
    /// It failed while it was stopping, with this failure.
    FailedWhileStopping(String),
    /// It failed too often; this is its last failure.
    GaveUp(String),
    /// It was still running when the process ended, and was cut.
    Cut,
}

/// One service's life.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceReport {
    /// Its name.
    pub name: &'static str,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended.
    pub end: ServiceEnd,
}

/// Runs a service until it is told to stop or is given up. `restarted` is told of each restart before it happens.
///
/// Dropping the future aborts the service.
pub(super) async fn supervise(
    service: Arc<dyn Service>,
    run: Run,
    config: SupervisionConfig,
    mut restarted: impl FnMut(),
) -> ServiceEnd {
    let name = service.name();
    let mut failures = VecDeque::new();
    loop {
        // A task of its own: a panic ends the attempt and nothing else.
        let attempt = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&service).run(run.clone())));
        let failure = match attempt.await {
            Ok(Ok(())) if run.stop.is_stopped() => return ServiceEnd::Stopped,
            Ok(Ok(())) => "it ended before it was told to stop".to_owned(),
            Ok(Err(error)) => error.report(),
            Err(join) => format!("panic: {}", panic_text(join)),
        };
        if run.stop.is_stopped() {
            tracing::error!(service = name, failure, "a service failed while it was stopping");
            return ServiceEnd::FailedWhileStopping(failure);
        }
        let now = run.clock.now();
        while failures.front().is_some_and(|at| now.saturating_duration_since(*at) >= config.window) {
            failures.pop_front();
        }
        failures.push_back(now);
        if failures.len() > config.restarts as usize {
            tracing::error!(service = name, failure, failures = failures.len(), "a service is given up");
            return ServiceEnd::GaveUp(failure);
        }
        let wait = config.wait(failures.len(), random());
        tracing::warn!(
            service = name,
            failure,
            failures = failures.len(),
            ?wait,
            "a service failed; it is restarted"
        );
        if run.stop.until(run.clock.sleep(wait)).await.is_none() {
            return ServiceEnd::Stopped;
        }
        restarted();
    }
}

/// Enough to spread restarts; no secret hangs on it.
#[expect(clippy::cast_possible_truncation, reason = "the low bits of a random id are what is wanted")]
fn random() -> u32 {
    uuid::Uuid::new_v4().as_u128() as u32
}
