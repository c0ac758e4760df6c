//! A real store with a point before and after each operation that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtime_jobs::store::{
    ClaimRequest, Claimed, Filter, Insert, JobStore, Origin, Pause, Probe, Progress, Pulse, Receipt, Report,
    Rescued, Retention, Stats,
};
use runtime_jobs::{Batch, BatchId, Enqueued, Job, JobId, JobState, JobsError, Links};
use serde_json::Value;

use super::gate::{Cut, Gate};

/// The store, its gate, and how often a worker with nothing to do asked it.
#[derive(Clone)]
pub(crate) struct Faulty(pub Arc<dyn JobStore>, pub Arc<Gate>, pub Arc<AtomicUsize>);

pub(crate) fn cut(_: Cut) -> JobsError {
    JobsError::Corrupt("the connection is gone".to_owned())
}

impl Faulty {
    async fn around<T>(&self, done: impl Future<Output = Result<T, JobsError>>) -> Result<T, JobsError> {
        self.1.point().await.map_err(cut)?;
        let done = done.await;
        self.1.point().await.map_err(cut)?;
        done
    }
}

#[async_trait]
impl JobStore for Faulty {
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError> {
        self.around(self.0.insert(jobs)).await
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        let claimed = self.0.claim(request).await;
        if claimed.as_ref().is_ok_and(|claimed| !claimed.is_empty()) {
            self.1.point().await.map_err(cut)?;
        }
        claimed
    }
    async fn probe(&self, request: &ClaimRequest) -> Result<Probe, JobsError> {
        self.2.fetch_add(1, Ordering::Relaxed);
        self.0.probe(request).await
    }
    fn announce(&self) {
        self.0.announce();
    }
    async fn announced(&self) {
        self.0.announced().await;
    }
    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[u64],
        lease: Duration,
    ) -> Result<Pulse, JobsError> {
        if held.is_empty() {
            return self.0.heartbeat(worker, kinds, held, lease).await;
        }
        self.around(self.0.heartbeat(worker, kinds, held, lease)).await
    }
    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError> {
        self.around(self.0.report(reports)).await
    }
    async fn keep_progress(
        &self,
        id: JobId,
        fence: u64,
        progress: Option<&Value>,
        checkpoint: Option<&Value>,
    ) -> Result<(), JobsError> {
        self.around(self.0.keep_progress(id, fence, progress, checkpoint)).await
    }
    async fn progress(&self, id: JobId) -> Result<Progress, JobsError> {
        self.0.progress(id).await
    }
    async fn rescue(&self, max: u32) -> Result<Rescued, JobsError> {
        self.around(self.0.rescue(max)).await
    }
    async fn cancel(&self, id: JobId, tenant: Option<&str>) -> Result<JobState, JobsError> {
        self.around(self.0.cancel(id, tenant)).await
    }
    async fn redrive(&self, id: Option<JobId>, filter: &Filter) -> Result<u64, JobsError> {
        self.around(self.0.redrive(id, filter)).await
    }
    async fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<Job>, JobsError> {
        self.0.get(id, tenant).await
    }
    async fn list(&self, filter: &Filter) -> Result<Vec<Job>, JobsError> {
        self.0.list(filter).await
    }
    async fn prune(&self, retention: &Retention, max: u32) -> Result<u64, JobsError> {
        self.around(self.0.prune(retention, max)).await
    }
    async fn set_paused(&self, queue: &str, kind: Option<&str>, paused: bool) -> Result<(), JobsError> {
        self.around(self.0.set_paused(queue, kind, paused)).await
    }
    async fn insert_batch(
        &self,
        batch: BatchId,
        origin: Origin,
        jobs: Vec<Insert>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        self.around(self.0.insert_batch(batch, origin, jobs)).await
    }
    async fn batch(&self, id: BatchId, tenant: Option<&str>) -> Result<Option<Batch>, JobsError> {
        self.0.batch(id, tenant).await
    }
    async fn cancel_batch(&self, id: BatchId, tenant: Option<&str>, max: u32) -> Result<u64, JobsError> {
        self.around(self.0.cancel_batch(id, tenant, max)).await
    }
    async fn links(&self, id: JobId) -> Result<Links, JobsError> {
        self.0.links(id).await
    }
    async fn paused(&self) -> Result<Vec<Pause>, JobsError> {
        self.0.paused().await
    }
    async fn stats(&self, live: Duration) -> Result<Stats, JobsError> {
        self.0.stats(live).await
    }
}
