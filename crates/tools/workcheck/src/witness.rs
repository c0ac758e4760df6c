//! A store that writes down what passes through it, and is broken when told to be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::{Database, sqlx};
use runtime_jobs::store::{
    ClaimRequest, Claimed, Filter, Insert, JobStore, Load, Origin, Pause, Probe, Progress, Pulse, Receipt,
    Report, Rescued, Retention, Stats, Verdict,
};
use runtime_jobs::{Batch, BatchId, Enqueued, Job, JobId, JobState, JobsError, Limit, Links, SqlStore};
use serde_json::Value;

use crate::history::{Event, History, now};
use crate::load::{KINDS, Task};
use crate::settings::Broken;

pub(crate) struct Witness {
    inner: SqlStore,
    db: Database,
    history: History,
    broken: Broken,
    numbers: Mutex<HashMap<JobId, u64>>,
    forgotten: AtomicU64,
}

impl Witness {
    pub(crate) fn new(inner: SqlStore, db: Database, history: History, broken: Broken) -> Self {
        Self { inner, db, history, broken, numbers: Mutex::default(), forgotten: AtomicU64::new(0) }
    }

    fn numbers(&self) -> MutexGuard<'_, HashMap<JobId, u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw_report(&self, report: &Report, receipt: Receipt, called: i64) {
        let Some(job) = self.numbers().get(&report.id).copied() else { return };
        let last = !matches!(report.verdict, Verdict::Retry(..) | Verdict::Released(_));
        let accepted = receipt == Receipt::Accepted;
        self.history.saw(Event::Reported { job, fence: report.fence, last, accepted, called });
    }

    /// The lease that holds a job now.
    async fn current(&self, id: JobId) -> Option<u64> {
        let sql = "SELECT max(id) FROM runtime_jobs_leases WHERE body LIKE '%' || $1 || '%'";
        let found = sqlx::query_scalar::<_, Option<i64>>(sql).bind(id.to_string());
        let found = found.fetch_one(self.db.postgres()?).await.ok()??;
        u64::try_from(found).ok()
    }
}

#[async_trait]
impl JobStore for Witness {
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError> {
        self.inner.insert(jobs).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        let mut request = request.clone();
        if self.broken == Broken::Unlimited {
            request.limits = KINDS.iter().map(|kind| ((*kind).to_owned(), Limit::concurrency(50))).collect();
        }
        let mut claimed = self.inner.claim(&request).await?;
        for job in &mut claimed {
            if let Ok(mut task) = serde_json::from_str::<Task>(&job.payload) {
                task.fence = job.fence;
                self.history.saw(Event::Claimed { job: task.job, fence: job.fence });
                self.numbers().insert(job.id, task.job);
                job.payload = serde_json::to_string(&task).unwrap_or_default().into();
            }
        }
        Ok(claimed)
    }

    async fn probe(&self, request: &ClaimRequest) -> Result<Probe, JobsError> {
        self.inner.probe(request).await
    }

    fn announce(&self) {
        self.inner.announce();
    }

    async fn announced(&self) {
        self.inner.announced().await;
    }

    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[u64],
        lease: Duration,
    ) -> Result<Pulse, JobsError> {
        if self.broken == Broken::Unfenced {
            // Believes in its leases and does nothing for them.
            return Ok(Pulse { held: held.to_vec(), cancel: Vec::new() });
        }
        self.inner.heartbeat(worker, kinds, held, lease).await
    }

    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError> {
        let called = now();
        let mut told = reports.clone();
        if self.broken == Broken::Unfenced {
            for report in &mut told {
                report.fence = self.current(report.id).await.unwrap_or(report.fence);
            }
        }
        let mut forgotten = None;
        if self.broken == Broken::Forgetful
            && self.forgotten.fetch_add(1, Ordering::Relaxed).is_multiple_of(7)
        {
            forgotten = told.pop();
        }
        let mut receipts = self.inner.report(told).await?;
        if forgotten.is_some() {
            receipts.push(Receipt::Accepted);
        }
        for (report, receipt) in reports.iter().zip(&receipts) {
            self.saw_report(report, *receipt, called);
        }
        Ok(receipts)
    }

    async fn keep_progress(
        &self,
        id: JobId,
        fence: u64,
        progress: Option<&Value>,
        checkpoint: Option<&Value>,
    ) -> Result<(), JobsError> {
        self.inner.keep_progress(id, fence, progress, checkpoint).await
    }

    async fn progress(&self, id: JobId) -> Result<Progress, JobsError> {
        self.inner.progress(id).await
    }

    async fn insert_batch(
        &self,
        batch: BatchId,
        origin: Origin,
        jobs: Vec<Insert>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        self.inner.insert_batch(batch, origin, jobs).await
    }

    async fn batch(&self, id: BatchId, tenant: Option<&str>) -> Result<Option<Batch>, JobsError> {
        self.inner.batch(id, tenant).await
    }

    async fn cancel_batch(&self, id: BatchId, tenant: Option<&str>, max: u32) -> Result<u64, JobsError> {
        self.inner.cancel_batch(id, tenant, max).await
    }

    async fn links(&self, id: JobId) -> Result<Links, JobsError> {
        self.inner.links(id).await
    }

    async fn load(&self, queue: &str, most: u64) -> Result<Load, JobsError> {
        self.inner.load(queue, most).await
    }

    async fn rescue(&self, max: u32) -> Result<Rescued, JobsError> {
        self.inner.rescue(max).await
    }

    async fn cancel(&self, id: JobId, tenant: Option<&str>) -> Result<JobState, JobsError> {
        self.inner.cancel(id, tenant).await
    }

    async fn redrive(&self, id: Option<JobId>, filter: &Filter) -> Result<u64, JobsError> {
        self.inner.redrive(id, filter).await
    }

    async fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<Job>, JobsError> {
        self.inner.get(id, tenant).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Job>, JobsError> {
        self.inner.list(filter).await
    }

    async fn prune(&self, retention: &Retention, max: u32) -> Result<u64, JobsError> {
        self.inner.prune(retention, max).await
    }

    async fn set_paused(&self, queue: &str, kind: Option<&str>, paused: bool) -> Result<(), JobsError> {
        self.inner.set_paused(queue, kind, paused).await
    }

    async fn paused(&self) -> Result<Vec<Pause>, JobsError> {
        self.inner.paused().await
    }

    async fn stats(&self, live: Duration) -> Result<Stats, JobsError> {
        self.inner.stats(live).await
    }
}
