//! awa on its segmented queue storage, at the settings of its own throughput test: no deadlines, so that claims take its
//! short way; a poll each 50 ms; `COPY` to enqueue.
//!
//! Done: the exact count of its own `queue_counts`, of jobs in a terminal state.

use std::time::Duration;

use awa::model::migrations;
use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage, QueueStorageConfig,
};
use awa_worker::TransitionWorkerRole;
use sqlx_old::{PgPool, postgres::PgPoolOptions};

use super::Ran;
use crate::jobs::queue::{Queue, Stop, lots, stopped};

const QUEUE: &str = "noop";

#[derive(serde::Deserialize, serde::Serialize, JobArgs)]
struct Noop {
    n: usize,
    text: String,
}

impl Noop {
    fn new(n: usize) -> Self {
        Self { n, text: "forty bytes or so".to_owned() }
    }
}

pub struct Awa {
    pool: PgPool,
    store: QueueStorage,
    workers: u32,
    ran: Ran,
}

impl Awa {
    pub async fn open(url: &str, workers: u32) -> Self {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await.expect("connects");
        migrations::run(&pool).await.expect("migrates");
        let store = QueueStorage::new(QueueStorageConfig::default()).expect("sound");
        store.install(&pool).await.expect("installs");
        Self { pool, store, workers, ran: Ran::default() }
    }
}

fn opts() -> InsertOpts {
    InsertOpts { queue: QUEUE.to_owned(), ..InsertOpts::default() }
}

impl Queue for Awa {
    async fn enqueue(&self, count: usize) {
        for lot in lots(count) {
            let job = |n| awa::model::insert::params_with(&Noop::new(n), opts()).expect("JSON");
            let jobs: Vec<InsertParams> = (0..lot).map(job).collect();
            self.store.enqueue_params_copy(&self.pool, &jobs).await.expect("enqueued");
        }
    }

    async fn work(&self, stop: Stop) {
        let config = QueueConfig {
            max_workers: self.workers,
            poll_interval: Duration::from_millis(50),
            deadline_duration: Duration::ZERO,
            ..QueueConfig::default()
        };
        let ran = self.ran.clone();
        let client = Client::builder(self.pool.clone())
            .queue(QUEUE, config)
            .transition_role(TransitionWorkerRole::QueueStorageTarget)
            .register::<Noop, _, _>(move |_, _| {
                ran.add();
                async { Ok(JobResult::Completed) }
            })
            .build()
            .expect("sound");
        client.start().await.expect("starts");
        stopped(stop).await;
        client.shutdown(Duration::from_secs(5)).await;
    }

    fn ran(&self) -> usize {
        self.ran.get()
    }

    async fn done(&self) -> usize {
        let counts = self.store.queue_counts(&self.pool, QUEUE).await.expect("answers");
        usize::try_from(counts.terminal).expect("a count")
    }

    async fn enqueue_within(&self, with_job: bool, said: impl FnOnce()) {
        let mut tx = self.pool.begin().await.expect("begins");
        sqlx_old::query("INSERT INTO users VALUES (1)").execute(&mut *tx).await.expect("written");
        if with_job {
            awa::insert_with(&mut *tx, &Noop::new(1), opts()).await.expect("enqueued");
        }
        said();
        tx.commit().await.expect("committed");
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
