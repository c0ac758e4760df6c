//! graphile_worker: with 24 jobs at once, or at the settings of its own benchmark, with a local queue.
//!
//! Done: its row is gone, since it deletes what is done and keeps no history.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions,
};
use runtime_db::sqlx::{self, PgPool, postgres::PgPoolOptions};

use super::{Payload, Ran};
use crate::jobs::queue::{Queue, Setting, Stop, lots, stopped};

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
struct Noop(Payload);

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(ran) = context.get_ext::<Ran>() {
            ran.add();
        }
        Ok::<(), String>(())
    }
}

pub struct Graphile {
    pool: PgPool,
    worker: Arc<graphile_worker::Worker>,
    utils: graphile_worker::WorkerUtils,
    ran: Ran,
    enqueued: AtomicUsize,
}

impl Graphile {
    pub async fn open(url: &str, setting: Setting) -> Self {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await.expect("connects");
        let ran = Ran::default();
        let options = WorkerOptions::default().pg_pool(pool.clone());
        let options = match setting {
            Setting::Defaults => options.concurrency(24),
            Setting::Direct => options.concurrency(24).poll_interval(Duration::from_millis(5)),
            Setting::Local(size) => options
                .concurrency(500)
                .poll_interval(Duration::from_millis(5))
                .complete_job_batch_delay(Duration::from_millis(5))
                .local_queue(LocalQueueConfig::default().with_size(size)),
        };
        let worker = options.add_extension(ran.clone()).define_job::<Noop>().init().await.expect("migrates");
        let utils = worker.create_utils();
        Self { pool, worker: Arc::new(worker), utils, ran, enqueued: AtomicUsize::new(0) }
    }
}

impl Queue for Graphile {
    async fn enqueue(&self, count: usize) {
        for lot in lots(count) {
            let job = |n| RawJobSpec {
                identifier: "noop".to_owned(),
                payload: serde_json::to_value(Payload::new(n)).expect("JSON"),
                spec: JobSpec::default(),
            };
            self.utils.add_raw_jobs(&(0..lot).map(job).collect::<Vec<_>>()).await.expect("enqueued");
        }
        self.enqueued.fetch_add(count, Ordering::Relaxed);
    }

    async fn work(&self, stop: Stop) {
        let runs = Arc::clone(&self.worker);
        let running = tokio::spawn(async move { runs.run().await });
        stopped(stop).await;
        self.worker.request_shutdown();
        drop(running.await);
    }

    fn ran(&self) -> usize {
        self.ran.get()
    }

    async fn done(&self) -> usize {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM graphile_worker._private_jobs")
            .fetch_one(&self.pool)
            .await
            .expect("answers");
        self.enqueued.load(Ordering::Relaxed) - usize::try_from(left).expect("a count")
    }

    async fn enqueue_within(&self, with_job: bool, said: impl FnOnce()) {
        let mut tx = self.pool.begin().await.expect("begins");
        sqlx::query("INSERT INTO users VALUES (1)").execute(&mut *tx).await.expect("written");
        if with_job {
            let mut utils = self.utils.clone().with_executor(&mut tx);
            utils.add_raw_job("noop", Payload::new(1), JobSpec::default()).await.expect("enqueued");
        }
        said();
        tx.commit().await.expect("committed");
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
