//! What ties jobs together: one that waits for others, and batches that count their members.

use runtime_kernel::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::JobsError;
use crate::job::{Enqueued, Failure, JobId, JobState, NewJob};

runtime_kernel::id!(BatchId, "Names a batch; sorts by the time it was opened (UUIDv7).");

/// The most jobs one job waits for. For more, let it wait for a batch.
pub const MAX_PREREQUISITES: usize = 1000;

/// A job that another waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// Which job.
    pub id: JobId,
    /// What the handler of the one that waits knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How the jobs that one waits for must have ended for it to run. A job that is dead or cancelled has failed.
///
/// | trigger | runs when | is cancelled when |
/// |---|---|---|
/// | `Completed` | all have completed | one has failed, with a [reason](crate::Job::reason) that names it |
/// | `Eventually` | all have completed, dead ones after having been redriven | one that failed has been forgotten |
/// | `Ended` | all have ended | |
/// | `Failed` | the first has failed | all have completed |
///
/// Redriving a dead job lets those wait for it again that were cancelled because it had failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// All have completed; one that fails cancels it.
    #[default]
    Completed,
    /// All have completed, however long redriving those that failed takes.
    Eventually,
    /// All have ended, whatever became of them.
    Ended,
    /// One has failed.
    Failed,
}

/// What is to be done about a job that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Wait,
    Run,
    /// It can never run: one has failed.
    Failed,
    /// It can never run: none has failed.
    Spared,
}

impl Trigger {
    /// What to do when so many have not ended and so many have failed.
    pub(crate) fn decide(self, open: i64, failed: i64) -> Decision {
        match self {
            Self::Completed if failed > 0 => Decision::Failed,
            Self::Failed if failed > 0 => Decision::Run,
            _ if open > 0 => Decision::Wait,
            Self::Failed => Decision::Spared,
            Self::Eventually if failed > 0 => Decision::Wait,
            _ => Decision::Run,
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::Completed => 0,
            Self::Eventually => 1,
            Self::Ended => 2,
            Self::Failed => 3,
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn of(number: i32) -> Result<Self, JobsError> {
        let all = [Self::Completed, Self::Eventually, Self::Ended, Self::Failed];
        let found = all.into_iter().find(|trigger| trigger.number() == number);
        found.ok_or_else(|| JobsError::Corrupt(format!("unknown trigger {number}")))
    }
}

/// What a batch counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Its members.
    pub total: u64,
    /// Those that have not ended.
    pub open: u64,
    /// Those that have completed.
    pub completed: u64,
    /// Those that are dead; redriving one makes it open again.
    pub dead: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// The first that failed.
    pub cause: Option<JobId>,
    /// Whether it was cancelled, and so takes no more jobs.
    pub closed: bool,
    /// When it was opened.
    pub created_at: Timestamp,
}

/// A batch to be opened: jobs that are counted together, and jobs that wait for the count.
///
/// ```
/// use runtime_jobs::{NewBatch, NewJob};
/// use serde_json::json;
///
/// let batch = NewBatch::new((0..100).map(|n| NewJob::new("resize", json!({ "image": n }))))
///     .on_success(NewJob::new("gallery.publish", json!({})))
///     .on_failure(NewJob::new("gallery.warn", json!({})))
///     .on_end(NewJob::new("gallery.clean", json!({})));
/// # let _ = batch;
/// ```
#[derive(Clone, Debug, Default)]
pub struct NewBatch {
    pub(crate) jobs: Vec<NewJob>,
    pub(crate) callbacks: Vec<NewJob>,
}

impl NewBatch {
    /// A batch of these jobs. Running members may add more with [`NewJob::in_batch`]; one without any is over at once.
    pub fn new(jobs: impl IntoIterator<Item = NewJob>) -> Self {
        Self { jobs: jobs.into_iter().collect(), callbacks: Vec::new() }
    }

    /// Runs this when every job has completed, be it after having been redriven.
    #[must_use]
    pub fn on_success(self, callback: NewJob) -> Self {
        self.callback(callback.trigger(Trigger::Eventually))
    }

    /// Runs this as soon as the first job is dead or cancelled; cancelled when none has failed.
    #[must_use]
    pub fn on_failure(self, callback: NewJob) -> Self {
        self.callback(callback.trigger(Trigger::Failed))
    }

    /// Runs this when every job has ended, whatever became of it.
    #[must_use]
    pub fn on_end(self, callback: NewJob) -> Self {
        self.callback(callback.trigger(Trigger::Ended))
    }

    fn callback(mut self, callback: NewJob) -> Self {
        self.callbacks.push(callback);
        self
    }
}

/// A batch that has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batched {
    /// Its id.
    pub id: BatchId,
    /// Its members. A duplicate is another job's and not counted.
    pub jobs: Vec<Enqueued>,
    /// Its callbacks, in the order they were given.
    pub callbacks: Vec<Enqueued>,
}

/// What a job is tied to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// The jobs it waits for, or waited for, in the order they were named.
    pub after: Vec<Prerequisite>,
    /// The batch it waits for, or waited for.
    pub after_batch: Option<BatchId>,
    /// The batch that counts it.
    pub batch: Option<BatchId>,
}

/// A job another waits for, as the one that waits sees it. Its record is kept until that one has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prerequisite {
    /// Which job.
    pub id: JobId,
    /// The name it was given, if one was.
    pub name: Option<String>,
    /// How it ended; `None` while it has not.
    pub state: Option<JobState>,
    /// What its handler returned.
    pub result: Option<Value>,
    /// Why it failed: what its last attempt left, or why it was cancelled.
    pub failure: Option<Failure>,
}

impl Prerequisite {
    /// What its handler returned, as a type.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] when it has not completed, or returned something else.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, JobsError> {
        let Some(result) = &self.result else {
            return Err(JobsError::Invalid(format!("job {} has no result", self.id)));
        };
        T::deserialize(result).map_err(|error| {
            JobsError::Invalid(format!("the result of job {} does not parse: {error}", self.id))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_decides_by_what_is_open_and_what_has_failed() {
        use Decision::{Failed, Run, Spared, Wait};
        // (open, failed): completed, eventually, ended, failed
        for ((open, failed), decisions) in [
            ((2, 0), [Wait, Wait, Wait, Wait]),
            ((1, 1), [Failed, Wait, Wait, Run]),
            ((0, 1), [Failed, Wait, Run, Run]),
            ((0, 0), [Run, Run, Run, Spared]),
        ] {
            let triggers = [Trigger::Completed, Trigger::Eventually, Trigger::Ended, Trigger::Failed];
            assert_eq!(triggers.map(|trigger| trigger.decide(open, failed)), decisions, "{open} {failed}");
        }
    }
}
