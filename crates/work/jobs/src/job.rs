//! A job: what was asked, where it stands, and every attempt at it.

use std::time::Duration;

use runtime_kernel::{Carried, Error, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::links::{After, BatchId, Trigger};

runtime_kernel::id!(JobId, "Names a job; sorts by the time it was enqueued (UUIDv7).");

/// Where a job stands.
///
/// | from | to | when |
/// |---|---|---|
/// | `waiting` | `available`, `scheduled` | the jobs it waits for have ended as its [`Trigger`](crate::Trigger) asks |
/// | `waiting` | `cancelled` | they have ended so that it never can run |
/// | `scheduled` | `available` | its time has come |
/// | `available` | `running` | a worker claims it; the attempt is counted here |
/// | `running` | `completed`, `dead`, `cancelled` | the worker reports, with its lease still in force |
/// | `running` | `scheduled` | the attempt failed and may be retried, or asked to be run later |
/// | `running` | `available` | the worker drained or died: released, or rescued after its lease |
/// | `dead` | `available` | redriven |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for other jobs.
    Waiting,
    /// Waits for its time.
    Scheduled,
    /// Waits for a worker.
    Available,
    /// A worker holds its lease.
    Running,
    /// Done.
    Completed,
    /// Will not be tried again unless redriven.
    Dead,
    /// Given up on request.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Scheduled,
        Self::Available,
        Self::Running,
        Self::Completed,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen by itself.
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Dead | Self::Cancelled)
    }

    /// The state of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What to enqueue.
///
/// ```
/// use runtime_jobs::NewJob;
///
/// let job = NewJob::new("mail.send", serde_json::json!({ "to": "a@example.com" })).priority(-10).unique("welcome-7");
/// assert_eq!(job.queue, "default");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewJob {
    /// Which handler runs it.
    pub kind: String,
    /// What the handler gets.
    pub payload: Value,
    /// Which queue it waits in. `default` unless told.
    pub queue: String,
    /// Lower runs first. 0 unless told.
    pub priority: i16,
    /// Not before this time. At once unless told.
    pub run_at: Option<Timestamp>,
    /// How often it is tried at most, the first attempt included. 25 unless told.
    pub max_attempts: u32,
    /// How long one attempt may take. The worker's limit unless told.
    pub timeout: Option<Duration>,
    /// No second unfinished job of the same kind and tenant may have this key.
    pub unique_key: Option<String>,
    /// Keeps the key taken for so long after enqueueing, whether or not the job has finished.
    pub unique_for: Option<Duration>,
    /// Gives the key up when its first attempt begins, not when it has finished.
    #[serde(default)]
    pub unique_until_started: bool,
    /// Whom or what it concerns: jobs of one tenant, kind and queue that share a key run under the kind's
    /// [`Limit`](crate::Limit), one after another unless told.
    pub key: Option<String>,
    /// The jobs it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
    /// The batch it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_batch: Option<BatchId>,
    /// How those must have ended for it to run.
    #[serde(default)]
    pub trigger: Trigger,
    /// The batch that counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
}

impl NewJob {
    /// A job of a kind, to be run at once, with the defaults.
    pub fn new(kind: impl Into<String>, payload: Value) -> Self {
        Self {
            kind: kind.into(),
            payload,
            queue: "default".to_owned(),
            priority: 0,
            run_at: None,
            max_attempts: 25,
            timeout: None,
            unique_key: None,
            unique_for: None,
            unique_until_started: false,
            key: None,
            after: Vec::new(),
            after_batch: None,
            trigger: Trigger::default(),
            batch: None,
        }
    }

    /// Puts it into a queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = queue.into();
        self
    }

    /// Lower runs first.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// Not before this time.
    #[must_use]
    pub fn run_at(mut self, at: Timestamp) -> Self {
        self.run_at = Some(at);
        self
    }

    /// How often it is tried at most.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Refuses a second unfinished job with this key.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }

    /// Refuses a second unfinished job of the same kind with the same payload, whatever the order of its fields.
    #[must_use]
    pub fn unique_by_payload(self) -> Self {
        let key = digest(&self.payload);
        self.unique(key)
    }

    /// The same, of a payload that has the same values in these of its fields. One that is missing counts as null.
    #[must_use]
    pub fn unique_by_fields<'a>(self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        let value = |field: &str| (field.to_owned(), self.payload.get(field).cloned().unwrap_or_default());
        let key = digest(&Value::Object(fields.into_iter().map(value).collect()));
        self.unique(key)
    }

    /// Runs it under the kind's limit together with the jobs that share this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Lets it wait for these jobs, at most [`MAX_PREREQUISITES`](crate::MAX_PREREQUISITES). One that has ended already
    /// counts as it has ended; one that is not known, or is another tenant's, is [`JobsError::NotFound`](crate::JobsError).
    #[must_use]
    pub fn after(mut self, jobs: impl IntoIterator<Item = JobId>) -> Self {
        self.after.extend(jobs.into_iter().map(|id| After { id, name: None }));
        self
    }

    /// Lets it wait for a job that its handler finds by name among its
    /// [prerequisites](crate::JobContext::prerequisites).
    #[must_use]
    pub fn after_named(mut self, name: impl Into<String>, job: JobId) -> Self {
        self.after.push(After { id: job, name: Some(name.into()) });
        self
    }

    /// Lets it wait for all jobs of a batch: a callback.
    #[must_use]
    pub fn after_batch(mut self, batch: BatchId) -> Self {
        self.after_batch = Some(batch);
        self
    }

    /// How the jobs it waits for must have ended for it to run.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// Adds it to a batch that has not ended yet.
    #[must_use]
    pub fn in_batch(mut self, batch: BatchId) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Whether it waits for others or is counted by a batch.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn is_linked(&self) -> bool {
        !self.after.is_empty() || self.after_batch.is_some() || self.batch.is_some()
    }

    /// Gives the unique key up when it is first claimed to be run, so that what changes meanwhile is not missed: the next of its
    /// kind may wait while this one runs. A redriven job keeps it until it ends.
    #[must_use]
    pub fn unique_until_started(mut self) -> Self {
        self.unique_until_started = true;
        self
    }

    /// Keeps the unique key taken for so long, even once the job has finished.
    #[must_use]
    pub fn unique_for(mut self, period: Duration) -> Self {
        self.unique_for = Some(period);
        self
    }
}

/// SHA-256 of a value, its objects' fields in order, as hexadecimal digits.
fn digest(value: &Value) -> String {
    fn add(hash: &mut Sha256, value: &Value) {
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(name, _)| *name);
                hash.update(b"{");
                for (name, value) in fields {
                    add(hash, &Value::String(name.clone()));
                    add(hash, value);
                }
                hash.update(b"}");
            }
            Value::Array(values) => {
                hash.update(b"[");
                for value in values {
                    add(hash, value);
                }
                hash.update(b"]");
            }
            // A text ends with its quote, and a number with what follows it.
            scalar => hash.update(format!("{scalar},")),
        }
    }
    let mut hash = Sha256::new();
    add(&mut hash, value);
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
    hash.finalize().iter().flat_map(digits).collect()
}

/// What became of an enqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueued {
    /// The job: the new one, or the one that holds the unique key.
    pub id: JobId,
    /// Whether the unique key was taken, so that nothing was added.
    pub duplicate: bool,
}

/// An error as it is kept with an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's kind.
    pub kind: String,
    /// Its stable code.
    pub code: String,
    /// Its message and causes.
    pub message: String,
}

impl Failure {
    /// A failure in our own words.
    pub fn new(kind: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), code: code.into(), message: message.into() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(error.kind().as_str(), error.code(), error.report())
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The handler returned a result.
    Completed,
    /// The handler failed.
    Failed,
    /// The handler asked to be run later, or the worker gave the job back. Does not count as an attempt.
    Released,
    /// The job was cancelled while it ran.
    Cancelled,
    /// The lease ran out: the worker died or hung.
    Lost,
}

impl AttemptOutcome {
    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Completed, Self::Failed, Self::Released, Self::Cancelled, Self::Lost];
        all.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// One attempt at a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts claims of this job: never repeats, though a released claim does not use up an attempt.
    pub number: u64,
    /// Which worker process.
    pub worker: String,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended; `None` while it runs.
    pub outcome: Option<AttemptOutcome>,
    /// What went wrong.
    pub error: Option<Failure>,
}

/// A job with everything known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Which handler runs it.
    pub kind: String,
    /// Which queue it waits in.
    pub queue: String,
    /// Where it stands.
    pub state: JobState,
    /// Lower runs first.
    pub priority: i16,
    /// What the handler gets.
    pub payload: Value,
    /// The context that enqueued it.
    pub context: Carried,
    /// Attempts used so far.
    pub attempt: u32,
    /// Attempts allowed.
    pub max_attempts: u32,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it may next run.
    pub run_at: Timestamp,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// What the handler returned.
    pub result: Option<Value>,
    /// Why it was cancelled, when nobody asked for it: which job ended so that this one can never run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Failure>,
    /// Whether a cancel was asked for and the handler has not answered yet.
    pub cancel_requested: bool,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn payloads_share_a_key_when_and_only_when_they_say_the_same() {
        let key = |payload: Value| NewJob::new("a", payload).unique_by_payload().unique_key;
        let one = || key(json!({ "a": 1, "b": { "c": [1, "2"], "d": null } }));
        let text = r#"{"b":{"d":null,"c":[1,"2"]},"a":1}"#;
        assert_eq!(one(), key(serde_json::from_str(text).unwrap()));
        let others = [
            json!({ "a": 1, "b": { "c": [1, 2], "d": null } }),
            json!({ "a": 1, "b": { "c": [1, "2"] } }),
            json!({ "a": 1, "b": { "c": [[1, "2"]], "d": null } }),
            json!(["a", 1, "b", ["c", [1, "2"], "d", null]]),
            json!({ "a": 1, "b": { "c": [1, "2"] }, "d": null }),
            json!("a"),
            json!(12),
            json!([1, 2]),
        ];
        for other in &others {
            assert_ne!(one(), key(other.clone()), "{other}");
        }
        let fields = |payload: Value| NewJob::new("a", payload).unique_by_fields(["to", "of"]).unique_key;
        assert_eq!(fields(json!({ "to": 1, "at": 2 })), fields(json!({ "at": 3, "of": null, "to": 1 })));
        assert_ne!(fields(json!({ "to": 1 })), fields(json!({ "of": 1 })));
    }
}
