//! The ready action: enqueue a job, in the tick's own transaction where both are in one database.

use async_trait::async_trait;
use runtime_jobs::{Enqueued, Jobs, NewJob};
use runtime_kernel::{Context, Deadline, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::Fire;
use crate::schedule::Overlap;
use crate::store::{FireResult, Fired, Tick};

/// The payload of a schedule whose action is `job`: which job is enqueued.
///
/// The job carries the tick's trace and the schedule's tenant. Its deadline is its own, not the tick's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOf {
    /// Which handler runs it.
    pub kind: String,
    /// What the handler gets.
    #[serde(default)]
    pub payload: Value,
    /// Which queue it waits in. `default` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Lower runs first. 0 unless told.
    #[serde(default)]
    pub priority: i16,
    /// How often it is tried at most. The queue's default unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
}

/// Enqueues a job for each tick.
///
/// With [`Overlap::Skip`] a tick is left out while the schedule's previous job has not finished, with
/// [`Overlap::Wait`] it waits until it has: the job's unique key says so, in the same transaction.
#[derive(Clone, Debug)]
pub struct EnqueueJob {
    jobs: Jobs,
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    store: Option<runtime_jobs::SqlStore>,
}

impl EnqueueJob {
    /// Enqueues through these jobs, beside the tick: at least once. A tick's own unique key, kept for a day, makes a
    /// second enqueue of the same tick find the first.
    pub fn new(jobs: Jobs) -> Self {
        Self {
            jobs,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            store: None,
        }
    }

    /// Enqueues into the database the schedules are in too, in the tick's transaction: exactly once. Register it with
    /// [`Actions::on_in_tx`](crate::Actions::on_in_tx).
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub fn in_tx(jobs: Jobs, store: runtime_jobs::SqlStore) -> Self {
        Self { jobs, store: Some(store) }
    }
}

/// The tick's context without its deadline: that is about enqueueing, not about the job.
fn context(tick: &Tick) -> Context {
    let mut context = tick.context.clone();
    context.deadline = Deadline::NONE;
    context
}

/// The job of a tick. Of a schedule whose ticks may not overlap the unfinished job has the schedule's key.
fn job(tick: &Tick, named: Option<String>) -> Result<NewJob, Error> {
    let wanted = JobOf::deserialize(&tick.schedule.payload).map_err(|error| {
        Error::invalid(format!("the payload of schedule `{}` names no job: {error}", tick.key))
    })?;
    let mut job = NewJob::new(wanted.kind, wanted.payload).priority(wanted.priority);
    if let Some(queue) = wanted.queue {
        job = job.queue(queue);
    }
    if let Some(attempts) = wanted.max_attempts {
        job = job.max_attempts(attempts);
    }
    Ok(match named {
        Some(key) => job.unique(key),
        None => job,
    })
}

fn schedule_key(tick: &Tick) -> Option<String> {
    // A schedule's name has up to 200 bytes, as a unique key has: the hash keeps long ones apart.
    let name = format!("cron:{}", tick.key.name);
    let long = || format!("cron:{:016x}", crate::expression::hash::name(&tick.key.name));
    (tick.schedule.overlap != Overlap::Allow).then(|| if name.len() > 150 { long() } else { name })
}

fn told(tick: &Tick, done: Enqueued) -> Fired {
    match tick.schedule.overlap {
        _ if !done.duplicate => Fired::Done,
        Overlap::Wait { .. } => Fired::NotYet,
        _ => Fired::Skipped(format!("job {} of an earlier tick had not finished", done.id)),
    }
}

#[async_trait]
impl Fire for EnqueueJob {
    async fn fire(&self, tick: &Tick) -> FireResult {
        if let Some(key) = schedule_key(tick) {
            let done = self.jobs.enqueue(&context(tick), job(tick, Some(key))?).await?;
            return Ok(told(tick, done));
        }
        let own =
            format!("cron:{:016x}@{}", crate::expression::hash::name(&tick.key.to_string()), tick.fire_time);
        let job = job(tick, Some(own))?.unique_for(std::time::Duration::from_hours(24));
        self.jobs.enqueue(&context(tick), job).await?;
        Ok(Fired::Done)
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[async_trait]
impl crate::action::FireInTx for EnqueueJob {
    async fn fire_in(&self, tx: &mut runtime_db::Tx, tick: &Tick) -> FireResult {
        let Some(store) = &self.store else {
            let why = "jobs of another store cannot be part of the tick's transaction";
            return Err(crate::error::CronError::Unsupported(why).into());
        };
        let job = job(tick, schedule_key(tick))?;
        let done = self.jobs.enqueue_in(tx, store, &context(tick), job).await?;
        Ok(told(tick, done))
    }
}
