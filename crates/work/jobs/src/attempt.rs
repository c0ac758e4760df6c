//! One attempt at a job, as a future that never fails and never panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Carried, Deadline, Error, ErrorKind, Retry, Source, TraceContext};
use runtime_resilience::{RetryPolicy, SharedRng};
use tokio_util::sync::CancellationToken;

use crate::error::LEASE_LOST;
use crate::handler::{Handler, JobContext, SNOOZED};
use crate::job::Failure;
use crate::queue::Jobs;
use crate::store::{Claimed, Verdict};

/// Runs a job's handler once, within its time.
pub(crate) async fn attempt(
    job: &mut Claimed,
    handler: &Handler,
    limit: Duration,
    cancelled: CancellationToken,
    jobs: &Jobs,
    settled: Arc<AtomicBool>,
) -> Result<serde_json::Value, Error> {
    let clock = &**jobs.clock();
    let carried: Carried = serde_json::from_str(&job.context).map_err(|error| {
        let message = format!("the stored context does not read back: {error}");
        Error::new(ErrorKind::Invalid, "jobs.corrupt", message)
    })?;
    #[cfg(feature = "seal")]
    let carried_tenant = carried.tenant.as_ref().map(runtime_kernel::TenantContext::namespace);
    let deadline = Deadline::after(clock, limit);
    let mut context = carried.resume(Source::Job, clock).with_deadline(deadline);
    // The first attempt continues the trace that enqueued the job; a later one, perhaps hours later, is a trace of its
    // own that names it (OpenTelemetry's advice for messages taken again: a link, not a child).
    let origin = context.trace.trace_id_hex();
    if job.attempt > 1 {
        context.trace = TraceContext::root();
    }
    let span = tracing::info_span!(
        "job",
        id = %job.id,
        kind = %job.kind,
        attempt = job.attempt,
        trace_id = %context.trace.trace_id_hex(),
        enqueued_in = %origin,
    );
    let handed = JobContext {
        context,
        id: job.id,
        kind: job.kind.clone(),
        queue: job.queue.clone(),
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        cancelled,
        fence: job.fence,
        jobs: jobs.clone(),
        settled,
    };
    let payload = Arc::clone(&job.payload);
    #[cfg(feature = "seal")]
    let payload = {
        let tenant = carried_tenant.as_deref().unwrap_or_default();
        let about = crate::seal::About { id: job.id, kind: &job.kind, tenant };
        crate::seal::open(jobs.keys.as_deref(), payload, &about)?
    };
    let work = tracing::Instrument::instrument(async { handler.handle(handed, payload).await }, span);
    // Around the deadline too: what is cut short may panic while it is dropped.
    match AssertUnwindSafe(deadline.run(clock, work)).catch_unwind().await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            let message = format!("the attempt took longer than {limit:?}");
            Err(Error::new(ErrorKind::Timeout, "jobs.timeout", message))
        }
        Err(panic) => Err(panicked(&*panic)),
    }
}

/// An internal fault is tried again, since the next deploy may mend it, and so is what was stopped, closed or not there
/// in time: it says nothing about the job. Whoever lost its lease has not failed either. Otherwise the error decides.
pub(crate) fn judge(
    error: &Error,
    attempt: u32,
    max: u32,
    policy: &RetryPolicy,
    rng: &mut SharedRng,
) -> Verdict {
    if error.code() == SNOOZED
        && let Retry::After(delay) = error.retry()
    {
        return Verdict::Released(delay);
    }
    let failure = Failure::from(error);
    let retry = match error.retry() {
        Retry::Never if of_the_attempt(error) => Retry::Backoff,
        retry => retry,
    };
    if attempt >= max {
        return Verdict::Dead(failure);
    }
    let delay = policy.next_delay(attempt.min(policy.max_attempts().saturating_sub(1)).max(1), retry, rng);
    delay.map_or(Verdict::Dead(failure.clone()), |delay| Verdict::Retry(delay, failure))
}

/// Whether what went wrong belongs to this attempt and not to the job.
fn of_the_attempt(error: &Error) -> bool {
    let passing = [ErrorKind::Internal, ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Cancelled];
    passing.contains(&error.kind()) || error.code() == LEASE_LOST
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::new(ErrorKind::Internal, "jobs.panicked", "the handler panicked").with_source(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobId, JobsError};

    #[test]
    fn what_belongs_to_the_attempt_does_not_end_the_job() {
        let error = |kind| Error::new(kind, "test.failed", "on purpose").with_retry(Retry::Never);
        let judged = |error: Error, attempt| {
            judge(&error, attempt, 3, &RetryPolicy::default(), &mut SharedRng::from_os())
        };
        for kind in ErrorKind::ALL {
            let passing = ["internal", "timeout", "unavailable", "cancelled"].contains(&kind.as_str());
            let again = matches!(judged(error(kind), 1), Verdict::Retry(..));
            assert_eq!(again, passing, "{kind}");
        }
        let lost = || Error::from(JobsError::LeaseLost(JobId::from(runtime_kernel::Uuid::nil())));
        assert!(matches!(judged(lost(), 1), Verdict::Retry(..)));
        assert!(matches!(judged(lost(), 3), Verdict::Dead(_)));
    }
}
