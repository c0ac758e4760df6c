//! Jobs in a database: SQLite and Postgres.
//!
//! A job waits as a row of `ready`, or of `later` until its time comes. A claim takes rows out of `ready` and writes
//! them, whole, into one row of `leases`: no row of a job is ever updated, and a lease of hundreds of jobs is extended or
//! ended by touching one row. What ends is copied into `finished`, or back into `later`. Every step is one transaction.

mod admin;
mod awaiting;
mod batch;
mod body;
mod claim;
#[cfg(feature = "postgres")]
mod copy;
mod house;
mod lease;
mod link;
mod load;
mod low;
mod progress;
mod report;
mod row;
mod slots;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::{self, AssertSqlSafe};
use runtime_db::{Database, Dialect, Tx, on_connection};
use runtime_kernel::{Context, Source};
use serde_json::Value;

use self::lease::Lease;
use self::low::LowWater;
use crate::error::JobsError;
use crate::job::{Enqueued, Job, JobId, JobState};
use crate::links::{Batch, BatchId, Links};
use crate::store::{
    AGEING, ClaimRequest, Claimed, Filter, Insert, JobStore, Load, Origin, Pause, Probe, Progress, Pulse,
    Receipt, Report, Rescued, Retention, Stats, Verdict,
};

/// Leases whose jobs are kept at hand, so that a report need not read them back.
const KEPT_LEASES: usize = 1024;

/// Jobs in the database a service has anyway, so that enqueueing can be part of its transactions.
///
/// Time comes from the database: Postgres is asked for it in each statement that needs it; SQLite lives on this machine,
/// so its time is this process's clock.
#[derive(Clone)]
pub struct SqlStore {
    db: Database,
    ageing: Duration,
    low: Arc<LowWater>,
    /// From when on jobs may wait for their time.
    due: Arc<LowWater>,
    /// What this process has claimed and not yet ended.
    leases: Arc<Mutex<HashMap<i64, Arc<Lease>>>>,
    #[cfg(feature = "postgres")]
    bell: runtime_db::Bell,
    /// Whether this process's clock is taken for the database's.
    local: bool,
}

impl SqlStore {
    /// Jobs in this database. Its tables come with [`migrations`](crate::migrations).
    pub fn new(db: Database) -> Self {
        let db_is_local = db.dialect() == Dialect::Sqlite;
        Self {
            db,
            ageing: AGEING,
            low: Arc::default(),
            due: Arc::default(),
            leases: Arc::default(),
            #[cfg(feature = "postgres")]
            bell: runtime_db::Bell::new("runtime_jobs"),
            local: db_is_local,
        }
    }

    /// How much longer a job may have waited and still be overtaken by one that is one level more urgent; the same for all
    /// processes. A minute unless told.
    #[must_use]
    pub fn with_ageing(mut self, ageing: Duration) -> Self {
        self.ageing = ageing;
        self
    }

    /// Takes this process's clock for the database's on Postgres too: for tests, which move it.
    #[cfg(feature = "testkit")]
    #[must_use]
    pub fn on_this_clock(mut self) -> Self {
        self.local = true;
        self
    }

    /// Forgets from where on jobs may wait: for tests, which move times under it.
    #[cfg(feature = "testkit")]
    pub fn forget_marks(&self) {
        self.low.forget();
        self.due.forget();
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    /// This process's time, where it is the database's.
    fn local_now(&self) -> Option<i64> {
        self.local.then(|| self.db.clock().utc().as_microsecond())
    }

    async fn now(&self, tx: &mut Tx) -> Result<i64, JobsError> {
        if let Some(now) = self.local_now() {
            return Ok(now);
        }
        let sql = format!("SELECT {}", clock(Dialect::Postgres, "$1"));
        Ok(on_connection!(tx, conn => {
            sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(None::<i64>).fetch_one(&mut *conn).await?
        })?)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<i64, Arc<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes a claimed job inside a transaction of the caller's: what the job did and that it is done are kept
    /// together, or not at all. It should be the transaction's last statement, because it locks what other jobs of the same
    /// claim need to be reported.
    ///
    /// # Errors
    /// [`JobsError::LeaseLost`] when the lease has run out; the transaction must not be committed then.
    pub async fn complete_in(
        &self,
        tx: &mut Tx,
        id: JobId,
        fence: u64,
        result: Value,
    ) -> Result<(), JobsError> {
        self.settle_in(tx, id, fence, result).await.map(|_| ())
    }

    /// The same; says whether jobs that waited for it may run once it is committed.
    pub(crate) async fn settle_in(
        &self,
        tx: &mut Tx,
        id: JobId,
        fence: u64,
        result: Value,
    ) -> Result<bool, JobsError> {
        let report = Report { id, fence, verdict: Verdict::Completed(result) };
        let settled = self.end_jobs(tx, std::slice::from_ref(&report)).await?;
        if settled.receipts.first() != Some(&Receipt::Accepted) {
            return Err(JobsError::LeaseLost(id));
        }
        let (store, released) = (self.clone(), settled.released);
        tx.on_commit(move || {
            if released {
                store.announce();
            }
            let mut kept = store.kept();
            for lease in settled.over {
                kept.remove(&lease);
            }
        });
        Ok(released)
    }

    /// Adds jobs inside a transaction of the caller's: they exist when, and only when, it commits.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub async fn insert_in(&self, tx: &mut Tx, jobs: &[Insert]) -> Result<Vec<Enqueued>, JobsError> {
        self.add(tx, jobs).await
    }
}

/// Evaluates an expression on the pool that reads, whichever database it is.
macro_rules! on_reader {
    ($db:expr, $pool:ident => $run:expr) => {
        match $db.dialect() {
            #[cfg(feature = "sqlite")]
            runtime_db::Dialect::Sqlite => {
                let $pool = &$db.sqlite().ok_or(runtime_db::DbError::Closed)?.read;
                $run
            }
            #[cfg(feature = "postgres")]
            runtime_db::Dialect::Postgres => {
                let $pool = $db.postgres().ok_or(runtime_db::DbError::Closed)?;
                $run
            }
            #[allow(unreachable_patterns, reason = "which databases there are depends on the features")]
            _ => {
                return Err(
                    runtime_db::DbError::Unsupported("a database runtime-jobs has no feature for").into()
                )
            }
        }
    };
}
pub(crate) use on_reader;

/// The database's time in SQL, given [`SqlStore::local_now`] or a time it told before as a parameter.
fn clock(dialect: Dialect, parameter: &str) -> String {
    match dialect {
        Dialect::Sqlite => parameter.to_owned(),
        Dialect::Postgres => {
            format!(
                "(SELECT COALESCE({parameter}::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))"
            )
        }
    }
}

/// What locks the rows a statement finds, and waits for who has them, where there are other writers.
fn patient_lock(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => "FOR UPDATE",
    }
}

/// The same, without those somebody else has.
fn locking(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => "FOR UPDATE SKIP LOCKED",
    }
}

#[async_trait]
impl JobStore for SqlStore {
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError> {
        #[cfg(feature = "postgres")]
        if let ([insert], Some(pool)) = (jobs.as_slice(), self.db.postgres())
            && insert.job.unique_key.is_none()
            && !insert.job.is_linked()
        {
            self.enqueue_alone(pool, insert).await?;
            self.note_urgent(insert);
            return Ok(vec![Enqueued { id: insert.id, duplicate: false }]);
        }
        self.db.transaction(&self.context(), async |mut tx: Tx| self.add(&mut tx, &jobs).await).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        self.claim_due(request).await
    }

    async fn probe(&self, request: &ClaimRequest) -> Result<Probe, JobsError> {
        self.look(request).await
    }

    fn announce(&self) {
        #[cfg(feature = "postgres")]
        if self.db.dialect() == Dialect::Postgres {
            self.bell.ring(&self.db);
        }
    }

    async fn announced(&self) {
        #[cfg(feature = "postgres")]
        if self.db.dialect() == Dialect::Postgres {
            return self.bell.hear(&self.db).await;
        }
        std::future::pending::<()>().await;
    }

    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[u64],
        lease: Duration,
    ) -> Result<Pulse, JobsError> {
        self.beat(worker, kinds, held, lease).await
    }

    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError> {
        self.take_reports(&reports).await
    }

    async fn keep_progress(
        &self,
        id: JobId,
        fence: u64,
        progress: Option<&Value>,
        checkpoint: Option<&Value>,
    ) -> Result<(), JobsError> {
        let keep = async |mut tx: Tx| self.write_progress(&mut tx, id, fence, progress, checkpoint).await;
        self.db.transaction(&self.context(), keep).await
    }

    async fn progress(&self, id: JobId) -> Result<Progress, JobsError> {
        self.read_progress(id).await
    }

    async fn rescue(&self, max: u32) -> Result<Rescued, JobsError> {
        self.take_back(max).await
    }

    async fn cancel(&self, id: JobId, tenant: Option<&str>) -> Result<JobState, JobsError> {
        self.db.transaction(&self.context(), async |mut tx: Tx| self.stop(&mut tx, id, tenant).await).await
    }

    async fn redrive(&self, id: Option<JobId>, filter: &Filter) -> Result<u64, JobsError> {
        self.db.transaction(&self.context(), async |mut tx: Tx| self.revive(&mut tx, id, filter).await).await
    }

    async fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<Job>, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let job = self.find(&mut tx, id, tenant).await?;
        tx.rollback().await?;
        Ok(job)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Job>, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let jobs = self.page(&mut tx, filter).await?;
        tx.rollback().await?;
        Ok(jobs)
    }

    async fn prune(&self, retention: &Retention, max: u32) -> Result<u64, JobsError> {
        self.db
            .transaction(&self.context(), async |mut tx: Tx| self.forget(&mut tx, retention, max).await)
            .await
    }

    async fn set_paused(&self, queue: &str, kind: Option<&str>, paused: bool) -> Result<(), JobsError> {
        self.mark_paused(queue, kind.unwrap_or_default(), paused).await
    }

    async fn insert_batch(
        &self,
        batch: BatchId,
        origin: Origin,
        jobs: Vec<Insert>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        let open = async |mut tx: Tx| self.open_batch(&mut tx, batch, &origin, &jobs).await;
        self.db.transaction(&self.context(), open).await
    }

    async fn batch(&self, id: BatchId, tenant: Option<&str>) -> Result<Option<Batch>, JobsError> {
        self.read_batch(id, tenant).await
    }

    async fn cancel_batch(&self, id: BatchId, tenant: Option<&str>, max: u32) -> Result<u64, JobsError> {
        self.stop_batch(id, tenant, max).await
    }

    async fn load(&self, queue: &str, most: u64) -> Result<Load, JobsError> {
        self.measure(queue, most).await
    }

    async fn links(&self, id: JobId) -> Result<Links, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let links = self.read_links(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(links)
    }

    async fn paused(&self) -> Result<Vec<Pause>, JobsError> {
        self.read_paused().await
    }

    async fn stats(&self, live: Duration) -> Result<Stats, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let stats = self.count(&mut tx, live).await?;
        tx.rollback().await?;
        Ok(stats)
    }
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("db", &self.db).finish_non_exhaustive()
    }
}
