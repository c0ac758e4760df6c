//! A job as requests describe it.

use runtime_jobs::{BatchId, JobId, NewJob, Trigger};
use runtime_kernel::{Error, ErrorKind, Timestamp, units};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::schema::{Id, Label, Moment, Span, TriggerName, object, whole};

/// A job to enqueue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Enqueue {
    /// Which handler runs it, for example `http.request`.
    #[schemars(with = "Label")]
    pub(super) kind: String,
    /// What the handler gets.
    #[serde(default)]
    pub(super) payload: Value,
    /// The queue; `default` unless told.
    #[schemars(with = "Option<Label>")]
    queue: Option<String>,
    /// Lower runs first.
    #[serde(default, deserialize_with = "whole")]
    priority: Option<i16>,
    /// Not before this time.
    #[schemars(with = "Option<Moment>")]
    run_at: Option<Timestamp>,
    /// How often it is tried at most.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<u32>,
    /// How long one attempt may take, for example `30s`.
    #[serde(default, with = "units::duration_option")]
    #[schemars(with = "Option<Span>")]
    timeout: Option<std::time::Duration>,
    /// Jobs of one kind and queue that share a key run under the kind's limit, one after another unless configured.
    #[schemars(with = "Option<Label>")]
    key: Option<String>,
    /// Keeps a second job of this kind from being enqueued meanwhile.
    #[serde(default, deserialize_with = "object")]
    unique: Option<Unique>,
    /// The jobs it waits for.
    #[serde(default)]
    #[schemars(with = "Vec<Id>", length(max = 1000))]
    after: Vec<JobId>,
    /// How those must have ended: all completed (`completed`, unless told), all completed once dead ones have been redriven
    /// (`eventually`), all ended (`ended`), or one failed (`failed`).
    #[schemars(with = "Option<TriggerName>")]
    trigger: Option<Trigger>,
    /// The batch that counts it.
    #[schemars(with = "Option<Id>")]
    batch: Option<BatchId>,
}

/// What makes a job the only one: a key, its payload, or some fields of that.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Unique {
    /// No second unfinished job of this kind may have this key.
    #[schemars(with = "Option<Label>")]
    key: Option<String>,
    /// No second one may have the same payload.
    #[serde(default)]
    payload: bool,
    /// No second one may have the same values in these fields of its payload.
    #[serde(default)]
    #[schemars(with = "Vec<Label>", length(max = 100))]
    fields: Vec<String>,
    /// Keeps the key taken for so long, even once the job has finished.
    #[serde(rename = "for", default, with = "units::duration_option")]
    #[schemars(with = "Option<Span>")]
    period: Option<std::time::Duration>,
    /// Gives the key up as soon as the job begins.
    #[serde(default)]
    until_started: bool,
}

impl Enqueue {
    pub(super) fn into_job(self) -> Result<NewJob, Error> {
        let mut job = NewJob::new(self.kind, self.payload);
        job.queue = self.queue.unwrap_or(job.queue);
        job.priority = self.priority.unwrap_or(job.priority);
        job.run_at = self.run_at;
        job.max_attempts = self.max_attempts.unwrap_or(job.max_attempts);
        job.timeout = self.timeout;
        job.key = self.key;
        job.batch = self.batch;
        job = job.after(self.after).trigger(self.trigger.unwrap_or_default());
        if let Some(Unique { key, payload, fields, period, until_started }) = self.unique {
            job = match (key, payload, fields.is_empty()) {
                (Some(key), false, true) => job.unique(key),
                (None, true, true) => job.unique_by_payload(),
                (None, false, false) => job.unique_by_fields(fields.iter().map(String::as_str)),
                _ => {
                    let message = "must have exactly one of `key`, `payload` (true) and `fields`";
                    let wrong =
                        Error::new(ErrorKind::Invalid, "http.invalid_json", format!("`unique` {message}"));
                    return Err(wrong.with_detail("unique", message));
                }
            };
            (job.unique_for, job.unique_until_started) = (period, until_started);
        }
        Ok(job)
    }
}
