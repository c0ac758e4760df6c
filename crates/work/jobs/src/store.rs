//! The port: where jobs live. Every operation is shaped for batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Carried, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::JobsError;
use crate::job::{Enqueued, Failure, Job, JobId, JobState, NewJob};
use crate::limit::Limit;
use crate::links::{Batch, BatchId, Links};

/// Who enqueues: a context at rest, written out once for all jobs enqueued together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The namespace of its tenant; empty without one.
    pub tenant: Arc<str>,
    /// The context, as JSON.
    pub context: Arc<str>,
}

impl Origin {
    /// The origin a context makes.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] for a context that is not JSON.
    pub fn of(context: &Carried) -> Result<Self, JobsError> {
        let text = serde_json::to_string(context).map_err(|error| JobsError::Invalid(error.to_string()))?;
        let tenant = context.tenant.as_ref().map(runtime_kernel::TenantContext::namespace);
        Ok(Self { tenant: tenant.unwrap_or_default().into(), context: text.into() })
    }
}

/// A job on its way into a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// The id it will have; never given twice.
    pub id: JobId,
    /// What is enqueued.
    pub job: NewJob,
    /// Who enqueues it.
    pub origin: Origin,
}

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The worker process.
    pub worker: String,
    /// The queues it serves.
    pub queues: Vec<String>,
    /// The kinds it handles. A job of another kind is never claimed.
    pub kinds: Vec<String>,
    /// At most so many.
    pub max: u32,
    /// How long the claim holds without a heartbeat.
    pub lease: Duration,
    /// What holds for jobs that share a key, by kind; [`Limit::ONE`] for kinds it does not name.
    pub limits: BTreeMap<String, Limit>,
}

impl ClaimRequest {
    pub(crate) fn limit(&self, kind: &str) -> Limit {
        self.limits.get(kind).copied().unwrap_or(Limit::ONE)
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn is_paced(&self) -> bool {
        self.limits.values().any(|limit| limit.rate.is_some())
    }
}

/// Something that is paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pause {
    /// The queue.
    pub queue: String,
    /// The kind; the whole queue when absent.
    pub kind: Option<String>,
}

/// A claimed job and the token that proves the claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// Names the lease; jobs claimed together share it. Grows with every claim, and a report under an older one is
    /// refused.
    pub fence: u64,
    /// Which handler runs it.
    pub kind: Arc<str>,
    /// Which queue it waited in.
    pub queue: Arc<str>,
    /// What the handler gets, as JSON.
    pub payload: Arc<str>,
    /// The context that enqueued it, as JSON of a [`Carried`].
    pub context: Arc<str>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Attempts allowed.
    pub max_attempts: u32,
    /// How long this attempt may take.
    pub timeout: Option<Duration>,
}

/// How a claimed job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is done.
    Completed(Value),
    /// It failed and is run again after the delay.
    Retry(Duration, Failure),
    /// It failed for good.
    Dead(Failure),
    /// It stopped because a cancel was asked for.
    Cancelled,
    /// It is given back, to be run again after the delay; the attempt is not counted.
    Released(Duration),
}

/// A worker's report on one claimed job.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which job.
    pub id: JobId,
    /// The claim it was run under.
    pub fence: u64,
    /// How it ended.
    pub verdict: Verdict,
}

/// Whether a report was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It was, and is durable.
    Accepted,
    /// The claim no longer holds: somebody else has the job, or it has finished.
    Stale,
}

/// What a heartbeat learns about a worker's leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Of the leases named, those that still hold.
    pub held: Vec<u64>,
    /// Jobs under them somebody wants cancelled.
    pub cancel: Vec<JobId>,
}

/// What a look into a store finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Whether a claim may find something now.
    pub due: bool,
    /// How long until a scheduled job's time comes, if one is waiting.
    pub next: Option<Duration>,
}

/// What attempts at a job have kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// For people: how far it is.
    pub progress: Option<Value>,
    /// For the next attempt: where to go on.
    pub checkpoint: Option<Value>,
}

/// What a rescue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs put back into the queue.
    pub returned: u64,
    /// Jobs that ended instead: their attempts were used up, or a cancel had been asked for.
    pub dead: u64,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this tenant's namespace; `None` for all.
    pub tenant: Option<String>,
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only in this queue.
    pub queue: Option<String>,
    /// Only counted by this batch.
    pub batch: Option<BatchId>,
    /// Only older than this one: the keyset of the next page.
    pub before: Option<JobId>,
    /// At most so many, newest first.
    pub limit: u32,
}

/// How long finished jobs are kept, by how they ended. `None` keeps them for ever.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Completed jobs.
    pub completed: Option<Duration>,
    /// Dead jobs.
    pub dead: Option<Duration>,
    /// Cancelled jobs.
    pub cancelled: Option<Duration>,
}

impl Retention {
    /// The longest of them: how long batches are kept. `None` for ever.
    pub fn longest(&self) -> Option<Duration> {
        Some(self.completed?.max(self.dead?).max(self.cancelled?))
    }
}

/// Unfinished jobs of one queue and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// The queue.
    pub queue: String,
    /// The kind.
    pub kind: String,
    /// How many, by state.
    pub states: BTreeMap<String, u64>,
    /// When the oldest available one could have run.
    pub oldest: Option<Timestamp>,
}

/// How much of a queue waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Jobs that could run and wait for a worker or for their key, counted no further than asked.
    pub depth: u64,
    /// How long the next in line has waited since it could run; the longest of the queue's kinds.
    pub age: Duration,
}

/// How the whole store stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Unfinished jobs.
    pub depths: Vec<Depth>,
    /// Finished jobs still kept, by state.
    pub finished: BTreeMap<String, u64>,
    /// Kinds with waiting jobs that no live worker handles.
    pub unhandled: Vec<String>,
}

/// Where jobs live. Laws every implementation passes are in `laws` (feature `testkit`).
///
/// An operation that returned `Ok` is durable. One that returned an error may or may not have happened; `report` may be
/// repeated, because a job's end under one lease is accepted once.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Adds jobs, all or none. A taken unique key adds nothing and names the job that holds it.
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError>;
    /// Claims jobs whose time has come under one lease, in the order of their [rank](rank), as far as the limits of their
    /// keys let them begin; a job never overtakes one of the same key that waits for a limit. Counts the attempt.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError>;
    /// Whether a claim may find something, for one cheap question while nothing happens.
    async fn probe(&self, request: &ClaimRequest) -> Result<Probe, JobsError>;
    /// Tells workers of other processes, soon and as cheaply as it can, that jobs may have become due. Polling finds what
    /// is not told.
    fn announce(&self) {}
    /// Waits until another process [announces](Self::announce), or until that may have been missed. A store that cannot
    /// tell waits for ever.
    async fn announced(&self) {
        std::future::pending::<()>().await;
    }
    /// Extends the leases a worker knows it holds and that have not run out, and notes which kinds it handles. A lease
    /// whose answer was lost on its way is not among them, so it runs out and its jobs are rescued.
    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[u64],
        lease: Duration,
    ) -> Result<Pulse, JobsError>;
    /// Ends claims; answers in the order of the reports.
    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError>;
    /// Keeps what an attempt has to show, under its lease; what is `None` stays as it was.
    ///
    /// # Errors
    /// [`JobsError::LeaseLost`] when the lease has run out or its job has ended.
    async fn keep_progress(
        &self,
        id: JobId,
        fence: u64,
        progress: Option<&Value>,
        checkpoint: Option<&Value>,
    ) -> Result<(), JobsError>;
    /// What attempts at a job have kept so far.
    async fn progress(&self, id: JobId) -> Result<Progress, JobsError>;
    /// Takes back leases that have run out, the longest ago first; at most so many in one call.
    async fn rescue(&self, max: u32) -> Result<Rescued, JobsError>;
    /// Cancels a waiting job at once; asks the worker of a running one. Says where the job then stands.
    async fn cancel(&self, id: JobId, tenant: Option<&str>) -> Result<JobState, JobsError>;
    /// Puts dead jobs back into the queue with a fresh set of attempts; at most `filter.limit`. Says how many.
    async fn redrive(&self, id: Option<JobId>, filter: &Filter) -> Result<u64, JobsError>;
    /// One job with its attempts.
    async fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<Job>, JobsError>;
    /// Jobs without their attempts, newest first.
    async fn list(&self, filter: &Filter) -> Result<Vec<Job>, JobsError>;
    /// Forgets finished jobs past their retention, the oldest first; at most so many in one call. Says how many.
    async fn prune(&self, retention: &Retention, max: u32) -> Result<u64, JobsError>;
    /// Pauses a queue, or one kind in it, or lets it go on. Nothing paused is claimed once this has returned.
    async fn set_paused(&self, queue: &str, kind: Option<&str>, paused: bool) -> Result<(), JobsError>;
    /// Opens a batch and adds jobs, all or none: those that name it as theirs are counted by it, those that wait for it
    /// are its callbacks. One that counts no job is over at once.
    async fn insert_batch(
        &self,
        batch: BatchId,
        origin: Origin,
        jobs: Vec<Insert>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        let _ = (batch, origin, jobs);
        Err(JobsError::Unsupported("batches"))
    }
    /// How a batch stands.
    async fn batch(&self, id: BatchId, tenant: Option<&str>) -> Result<Option<Batch>, JobsError> {
        let _ = (id, tenant);
        Err(JobsError::Unsupported("batches"))
    }
    /// Closes a batch to more jobs and cancels jobs of it, at most so many in one call: those that wait at once, those that
    /// run by asking. Says how many were cancelled or asked that had not been before; 0 when nothing is left to do.
    async fn cancel_batch(&self, id: BatchId, tenant: Option<&str>, max: u32) -> Result<u64, JobsError> {
        let _ = (id, tenant, max);
        Err(JobsError::Unsupported("batches"))
    }
    /// What a job is tied to.
    async fn links(&self, id: JobId) -> Result<Links, JobsError> {
        let _ = id;
        Err(JobsError::Unsupported("links between jobs"))
    }
    /// How much of a queue waits, counted up to one more than `most`. Costs no more for a longer queue.
    async fn load(&self, queue: &str, most: u64) -> Result<Load, JobsError> {
        let _ = (queue, most);
        Err(JobsError::Unsupported("measure of a queue's load"))
    }
    /// What is paused, by queue and kind.
    async fn paused(&self) -> Result<Vec<Pause>, JobsError>;
    /// Counts. A worker not heard from for `live` is not live.
    async fn stats(&self, live: Duration) -> Result<Stats, JobsError>;
}

/// What jobs are claimed by, lowest first: the time from which they may run, in microseconds, moved by their priority.
/// A job one level more urgent overtakes those that have waited up to `ageing` longer, so no job waits for ever.
pub fn rank(run_at: i64, priority: i16, ageing: Duration) -> i64 {
    let step = i64::try_from(ageing.as_micros()).unwrap_or(i64::MAX);
    run_at.saturating_add(i64::from(priority).saturating_mul(step))
}

/// How much longer a job may have waited and still be overtaken by one that is one level more urgent, unless told.
pub const AGEING: Duration = Duration::from_mins(1);

/// The name a limit's key has among all tenants.
pub(crate) fn limit_name(tenant: &str, key: &str) -> String {
    format!("{tenant}\n{key}")
}

/// The name a unique key has among all tenants and kinds.
pub(crate) fn unique_name(tenant: &str, kind: &str, key: &str) -> String {
    format!("{tenant}\n{kind}\n{key}")
}

/// What a job is cancelled with that waited for one that has failed.
pub(crate) fn prerequisite_failed(cause: JobId) -> Failure {
    let message = format!("job {cause}, which it waited for, has not completed");
    Failure::new("conflict", PREREQUISITE_FAILED, message)
}

pub(crate) const PREREQUISITE_FAILED: &str = "jobs.prerequisite_failed";

/// What a job is cancelled with that waited for a failure.
pub(crate) fn nothing_failed() -> Failure {
    Failure::new("conflict", "jobs.nothing_failed", "every job it waited for has completed")
}

/// What a job is cancelled with that waited for one that can no longer be redriven.
pub(crate) fn prerequisite_forgotten(cause: JobId) -> Failure {
    let message = format!("job {cause}, which it waited for, has failed and been forgotten");
    Failure::new("conflict", "jobs.prerequisite_forgotten", message)
}

/// What a lost lease leaves in the attempt's record.
pub(crate) fn lost() -> Failure {
    Failure::new("timeout", "jobs.lease_expired", "the worker was not heard from before its lease ran out")
}
