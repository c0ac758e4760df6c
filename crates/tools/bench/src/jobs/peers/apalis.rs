//! apalis-postgres: its defaults (batches of 10), or batches of 500. Results are persisted, since without that a row
//! never says that it is done.
//!
//! Done: `status = 'Done'`.

use std::sync::atomic::{AtomicUsize, Ordering};

use apalis::prelude::{BoxDynError, Data, TaskBuilder, WorkerBuilder};
use apalis_postgres::{Config, PostgresStorage, queries::push_tasks};
use runtime_db::sqlx::{self, PgPool, postgres::PgPoolOptions};

use super::{Payload, Ran};
use crate::jobs::queue::{Queue, Stop, lots, stopped};

const QUEUE: &str = "noop";

pub struct Apalis {
    pool: PgPool,
    batch: usize,
    ran: Ran,
    workers: AtomicUsize,
}

async fn noop(_: Payload, ran: Data<Ran>) -> Result<(), BoxDynError> {
    ran.add();
    Ok(())
}

impl Apalis {
    pub async fn open(url: &str, batch: usize) -> Self {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await.expect("connects");
        PostgresStorage::setup(&pool).await.expect("migrates");
        Self { pool, batch, ran: Ran::default(), workers: AtomicUsize::new(0) }
    }
}

fn task(n: usize) -> apalis_postgres::PgTask {
    TaskBuilder::new(serde_json::to_vec(&Payload::new(n)).expect("JSON")).build()
}

impl Queue for Apalis {
    async fn enqueue(&self, count: usize) {
        for lot in lots(count) {
            let mut connection = self.pool.acquire().await.expect("connects");
            push_tasks(&mut *connection, QUEUE, (0..lot).map(task).collect()).await.expect("enqueued");
        }
    }

    async fn work(&self, stop: Stop) {
        let config = Config::default().queue(QUEUE).batch_size(self.batch);
        let backend = PostgresStorage::<Payload>::new(&self.pool).with_config(config);
        let name = format!("noop-{}", self.workers.fetch_add(1, Ordering::Relaxed));
        let worker = WorkerBuilder::new(name).backend(backend).data(self.ran.clone()).build(noop);
        // Its future cannot be spawned in general.
        tokio::select! {
            ended = worker.run() => panic!("the worker ended: {ended:?}"),
            () = stopped(stop) => {}
        }
    }

    fn ran(&self) -> usize {
        self.ran.get()
    }

    async fn done(&self) -> usize {
        let done: i64 = sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE status = 'Done'")
            .fetch_one(&self.pool)
            .await
            .expect("answers");
        usize::try_from(done).expect("a count")
    }

    async fn enqueue_within(&self, with_job: bool, said: impl FnOnce()) {
        let mut tx = self.pool.begin().await.expect("begins");
        sqlx::query("INSERT INTO users VALUES (1)").execute(&mut *tx).await.expect("written");
        if with_job {
            push_tasks(&mut *tx, QUEUE, vec![task(1)]).await.expect("enqueued");
        }
        said();
        tx.commit().await.expect("committed");
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
