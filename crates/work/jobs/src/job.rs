//! A job: what was asked, where it stands, and every attempt at it.

use std::time::Duration;

use runtime_kernel::{Carried, Error, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

runtime_kernel::id!(JobId, "Names a job; sorts by the time it was enqueued (UUIDv7).");

/// Where a job stands.
///
/// | from | to | when |
/// |---|---|---|
/// | `scheduled` | `available` | its time has come |
/// | `available` | `running` | a worker claims it; the attempt is counted here |
/// | `running` | `completed`, `dead`, `cancelled` | the worker reports, with its lease still in force |
/// | `running` | `scheduled` | the attempt failed and may be retried, or asked to be run later |
/// | `running` | `available` | the worker drained or died: released, or rescued after its lease |
/// | `dead` | `available` | redriven |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
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
    pub const ALL: [Self; 6] =
        [Self::Scheduled, Self::Available, Self::Running, Self::Completed, Self::Dead, Self::Cancelled];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
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
    /// Whom or what it concerns: jobs of one tenant, kind and queue that share a key run under the kind's
    /// [`Limit`](crate::Limit), one after another unless told.
    pub key: Option<String>,
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
            key: None,
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

    /// Runs it under the kind's limit together with the jobs that share this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Keeps the unique key taken for so long, even once the job has finished.
    #[must_use]
    pub fn unique_for(mut self, period: Duration) -> Self {
        self.unique_for = Some(period);
        self
    }
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
    /// Whether a cancel was asked for and the handler has not answered yet.
    pub cancel_requested: bool,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
}
