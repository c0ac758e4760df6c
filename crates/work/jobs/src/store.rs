//! The port: where jobs live. Every operation is shaped for batches.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Carried, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::JobsError;
use crate::job::{Enqueued, Failure, Job, JobId, JobState, NewJob};

/// A job on its way into a store, with its id and the context that enqueues it.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// The id it will have.
    pub id: JobId,
    /// What is enqueued.
    pub job: NewJob,
    /// Who enqueues it.
    pub context: Carried,
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
}

/// A claimed job and the token that proves the claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// Grows with every claim of this job; a report with an older one is refused.
    pub fence: u64,
    /// Which handler runs it.
    pub kind: String,
    /// Which queue it waited in.
    pub queue: String,
    /// What the handler gets.
    pub payload: Value,
    /// The context that enqueued it.
    pub context: Carried,
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

/// What a heartbeat learns about a worker's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Of the claims named, those that still hold, by job and fence.
    pub held: Vec<(JobId, u64)>,
    /// Those of them somebody wants cancelled.
    pub cancel: Vec<JobId>,
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
/// An operation that returned `Ok` is durable. One that returned an error may or may not have happened; `report` and
/// `insert` may be repeated, because a fence and an id are accepted once.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Adds jobs, all or none. A taken unique key adds nothing and names the job that holds it.
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError>;
    /// Claims jobs whose time has come, by priority, then time, then id. Counts the attempt.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError>;
    /// Extends the claims a worker knows it holds and whose lease has not run out, and notes which kinds it handles. A
    /// claim whose answer was lost on its way is not among them, so its lease runs out and it is rescued.
    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[(JobId, u64)],
        lease: Duration,
    ) -> Result<Pulse, JobsError>;
    /// Ends claims; answers in the order of the reports.
    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError>;
    /// Takes back claims whose lease has run out, the longest ago first; at most so many in one call.
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
    /// Counts. A worker not heard from for `live` is not live.
    async fn stats(&self, live: Duration) -> Result<Stats, JobsError>;
}

/// The namespace of a context's tenant; empty without one.
pub(crate) fn namespace(context: &Carried) -> String {
    context.tenant.as_ref().map(runtime_kernel::TenantContext::namespace).unwrap_or_default()
}

/// What a lost lease leaves in the attempt's record.
pub(crate) fn lost() -> Failure {
    Failure::new("timeout", "jobs.lease_expired", "the worker was not heard from before its lease ran out")
}
