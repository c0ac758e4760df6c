//! underway with 24 jobs at once. Its worker takes up one more job at a time only when it is notified or polls, so it
//! polls each 10 ms while it works off a backlog that was there before it.
//!
//! Done: `state = 'succeeded'`.

use std::sync::Arc;

use sqlx_old::{PgPool, Postgres, Transaction, postgres::PgPoolOptions};
use underway::{Task, Worker, task};

use super::{Payload, Ran};
use crate::jobs::queue::{Queue, Stop, lots, stopped};

struct Noop(Ran);

impl Task for Noop {
    type Input = Payload;
    type Output = ();

    async fn execute(&self, _: Transaction<'_, Postgres>, _: Payload) -> task::Result<()> {
        self.0.add();
        Ok(())
    }
}

pub struct Underway {
    pool: PgPool,
    queue: Arc<underway::Queue<Noop>>,
    ran: Ran,
}

impl Underway {
    pub async fn open(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(30).connect(url).await.expect("connects");
        underway::run_migrations(&pool).await.expect("migrates");
        let queue =
            underway::Queue::builder().name("noop").pool(pool.clone()).build().await.expect("a queue");
        Self { pool, queue: Arc::new(queue), ran: Ran::default() }
    }

    async fn waiting(&self) -> i64 {
        sqlx_old::query_scalar("SELECT count(*) FROM underway.task WHERE state = 'pending'")
            .fetch_one(&self.pool)
            .await
            .expect("answers")
    }
}

impl Queue for Underway {
    async fn enqueue(&self, count: usize) {
        for lot in lots(count) {
            let jobs: Vec<Payload> = (0..lot).map(Payload::new).collect();
            self.queue.enqueue_multi(&self.pool, &Noop(self.ran.clone()), &jobs).await.expect("enqueued");
        }
    }

    async fn work(&self, stop: Stop) {
        let mut worker = Worker::new(Arc::clone(&self.queue), Noop(self.ran.clone()));
        worker.set_concurrency_limit(24);
        // An idle worker is left at its own minute.
        let period = if self.waiting().await > 0 { "PT0.01S" } else { "PT1M" };
        tokio::select! {
            ended = worker.run_every(period.parse().expect("a span")) => panic!("the worker ended: {ended:?}"),
            () = stopped(stop) => {}
        }
    }

    fn ran(&self) -> usize {
        self.ran.get()
    }

    async fn done(&self) -> usize {
        let done: i64 =
            sqlx_old::query_scalar("SELECT count(*) FROM underway.task WHERE state = 'succeeded'")
                .fetch_one(&self.pool)
                .await
                .expect("answers");
        usize::try_from(done).expect("a count")
    }

    async fn enqueue_within(&self, with_job: bool, said: impl FnOnce()) {
        let mut tx = self.pool.begin().await.expect("begins");
        sqlx_old::query("INSERT INTO users VALUES (1)").execute(&mut *tx).await.expect("written");
        if with_job {
            self.queue.enqueue(&mut *tx, &Noop(self.ran.clone()), &Payload::new(1)).await.expect("enqueued");
        }
        said();
        tx.commit().await.expect("committed");
    }

    async fn close(self) {
        self.pool.close().await;
    }
}
