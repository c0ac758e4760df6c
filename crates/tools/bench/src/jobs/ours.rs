//! Our own queue, with the defaults of its configuration but for 64 jobs at once.
//!
//! Done: nothing waits or is leased, and the history holds the jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime_db::sqlx;
use runtime_db::{Database, DbConfig};
use runtime_jobs::{Handlers, Jobs, JobsConfig, NewJob, SqlStore, Worker, keep_house, migrations};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_migrate::{MigrateOptions, Migrator};
use serde_json::json;

use super::queue::{Queue, Stop, lots, stopped};

pub struct Ours {
    pub jobs: Jobs,
    pub db: Database,
    store: SqlStore,
    ran: Arc<AtomicUsize>,
}

impl Ours {
    pub async fn open(url: &str) -> Self {
        let clock = SystemClock::shared();
        let db = Database::connect(&DbConfig::at(url), Arc::clone(&clock)).await.expect("connects");
        let migrator =
            Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).expect("sound");
        migrator.run().await.expect("migrates");
        let mut config = JobsConfig::default();
        config.concurrency = 64;
        let store = SqlStore::new(db.clone());
        Self { jobs: Jobs::new(store.clone(), config, clock), db, store, ran: Arc::default() }
    }

    /// Enqueues jobs whose keys go round so many.
    pub async fn enqueue_keyed(&self, count: usize, keys: usize) {
        let mut next = 0..count;
        for lot in lots(count) {
            let job = |n| noop(n).key(format!("key-{}", n % keys));
            let jobs = next.by_ref().take(lot).map(job).collect();
            self.jobs.enqueue_many(&context(), jobs).await.expect("enqueued");
        }
    }

    /// A worker of the no-op kind.
    pub fn worker(&self) -> Worker {
        let counted = Arc::clone(&self.ran);
        let handlers = Handlers::new().handle_value("noop", move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(serde_json::Value::Null) }
        });
        Worker::new(self.jobs.clone(), handlers).expect("sound")
    }
}

impl Queue for Ours {
    async fn enqueue(&self, count: usize) {
        for lot in lots(count) {
            self.jobs.enqueue_many(&context(), (0..lot).map(noop).collect()).await.expect("enqueued");
        }
    }

    async fn work(&self, stop: Stop) {
        let worker = self.worker();
        tokio::spawn(async move { worker.run(stopped(stop)).await }).await.expect("ends");
    }

    async fn idle(&self, stop: Stop) {
        tokio::join!(self.work(stop.clone()), keep_house(&self.jobs, stopped(stop)));
    }

    fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }

    async fn done(&self) -> usize {
        const LEFT: &str =
            "SELECT EXISTS (SELECT 1 FROM runtime_jobs_ready) OR EXISTS (SELECT 1 FROM runtime_jobs_leases)";
        const KEPT: &str = "SELECT count(*) FROM runtime_jobs_finished";
        let (left, kept): (bool, i64) = if let Some(pool) = self.db.postgres() {
            let left = sqlx::query_scalar(LEFT).fetch_one(pool).await.expect("answers");
            (left, sqlx::query_scalar(KEPT).fetch_one(pool).await.expect("answers"))
        } else {
            let pool = &self.db.sqlite().expect("one of the two").read;
            let left = sqlx::query_scalar(LEFT).fetch_one(pool).await.expect("answers");
            (left, sqlx::query_scalar(KEPT).fetch_one(pool).await.expect("answers"))
        };
        // Leases end with their last job.
        if left { 0 } else { usize::try_from(kept).expect("a count") }
    }

    async fn enqueue_within(&self, with_job: bool, said: impl FnOnce()) {
        let context = context();
        let mut tx = self.db.begin(&context).await.expect("begins");
        let connection = tx.postgres().expect("Postgres");
        sqlx::query("INSERT INTO users VALUES (1)").execute(connection).await.expect("written");
        if with_job {
            self.jobs.enqueue_in(&mut tx, &self.store, &context, noop(1)).await.expect("enqueued");
        }
        said();
        tx.commit().await.expect("committed");
    }

    async fn close(self) {
        self.db.close().await;
    }
}

pub fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

pub fn noop(n: usize) -> NewJob {
    NewJob::new("noop", json!({ "n": n, "text": "forty bytes or so" }))
}
