//! A job as the API and the command line show it.

use runtime_jobs::{Attempt, Failure, Job};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::schema::StateName;
use crate::http_request;

/// A job as it stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JobView {
    /// Its id.
    pub(crate) id: String,
    /// Which handler runs it.
    pub(crate) kind: String,
    /// Its queue.
    pub(crate) queue: String,
    /// Where it stands.
    #[schemars(with = "StateName")]
    pub(crate) state: String,
    /// Lower runs first.
    pub(crate) priority: i16,
    /// What the handler gets; header values that carry credentials are hidden.
    pub(crate) payload: Value,
    /// Attempts used.
    pub(crate) attempt: u32,
    /// Attempts allowed.
    pub(crate) max_attempts: u32,
    /// When it was enqueued.
    pub(crate) created_at: String,
    /// When it may next run.
    pub(crate) run_at: String,
    /// When it finished.
    pub(crate) finished_at: Option<String>,
    /// What the handler returned.
    pub(crate) result: Option<Value>,
    /// Whether a cancel was asked for and not yet answered.
    pub(crate) cancel_requested: bool,
    /// Why it was cancelled, when nobody asked: a job it waited for.
    pub(crate) reason: Option<ErrorView>,
    /// The request that enqueued it.
    pub(crate) request_id: String,
    /// The trace it belongs to.
    pub(crate) traceparent: String,
    /// Every attempt, oldest first; a list of jobs leaves them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<Vec<AttemptView>>,
}

/// One attempt.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AttemptView {
    /// Counts claims of the job.
    number: u64,
    /// Which worker process.
    worker: String,
    /// When it began.
    started_at: String,
    /// When it ended.
    finished_at: Option<String>,
    /// How it ended: completed, failed, released, cancelled or lost.
    outcome: Option<String>,
    /// What went wrong.
    error: Option<ErrorView>,
}

/// What went wrong with an attempt.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorView {
    /// The kind of failure.
    kind: String,
    /// Its stable name.
    code: String,
    /// What happened.
    message: String,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            id: job.id.to_string(),
            state: job.state.as_str().to_owned(),
            payload: redacted(&job.kind, job.payload),
            kind: job.kind,
            queue: job.queue,
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            created_at: job.created_at.to_string(),
            run_at: job.run_at.to_string(),
            finished_at: job.finished_at.map(|at| at.to_string()),
            result: job.result,
            cancel_requested: job.cancel_requested,
            reason: job.reason.map(ErrorView::from),
            request_id: job.context.request_id,
            traceparent: job.context.traceparent,
            attempts: Some(job.attempts.into_iter().map(AttemptView::from).collect()),
        }
    }
}

impl JobView {
    /// As one of many, whose attempts have not been read.
    pub(crate) fn listed(job: Job) -> Self {
        Self { attempts: None, ..Self::from(job) }
    }
}

impl From<Failure> for ErrorView {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind, code: failure.code, message: failure.message }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        let error = attempt.error.map(ErrorView::from);
        Self {
            number: attempt.number,
            worker: attempt.worker,
            started_at: attempt.started_at.to_string(),
            finished_at: attempt.finished_at.map(|at| at.to_string()),
            outcome: attempt.outcome.map(|outcome| outcome.as_str().to_owned()),
            error,
        }
    }
}

/// Hides the values of headers and fields whose names say that they are secret.
fn redacted(kind: &str, mut payload: Value) -> Value {
    if let Some(headers) = payload.get_mut("headers").filter(|_| kind == http_request::KIND) {
        hide(headers);
    } else {
        hide(&mut payload);
    }
    payload
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if runtime_telemetry::redact::is_secret_name(name) {
                    *value = Value::from("***");
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}
