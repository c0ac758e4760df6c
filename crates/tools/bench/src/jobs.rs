//! Background jobs: how fast a backlog is drained, enqueued and begun, beside other queues on the same Postgres.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runtime_db::{Database, DbConfig};
use runtime_jobs::{Handlers, Jobs, JobsConfig, NewJob, SqlStore, Worker, migrations};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_migrate::{MigrateOptions, Migrator};
use runtime_testkit::postgres::Server;
use serde_json::json;

use crate::report::Row;

/// Jobs drained in one round.
const JOBS: usize = 100_000;

const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "1GB"), ("max_wal_size", "4GB"), ("checkpoint_timeout", "30min")];

pub fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    for (name, folder) in [("tmpfs", "/dev/shm"), ("disk", "/var/tmp")] {
        if std::env::var("ROUNDS").is_err() { println!("{name}: {}", fsync(folder)); }
        runtime.block_on(async {
            let server = Server::start_in(Path::new(folder), &SETTINGS).await.expect("postgres is installed");
            for round in 0..rounds {
                let url = server.create_database(&format!("ours_{round}")).await.expect("a database");
                let ours = Ours::open(&url).await;
                let enqueued = ours.enqueue(JOBS).await;
                let drained = ours.drain(JOBS).await;
                println!("{name} round {round}: enqueue {enqueued:.0}/s drain {drained:.0}/s");
            }
        });
    }
    runtime.block_on(async {
        for round in 0..rounds {
            let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
            let ours = Ours::open(&format!("sqlite:{}", folder.path().join("jobs.db").display())).await;
            let enqueued = ours.enqueue(JOBS).await;
            let drained = ours.drain(JOBS).await;
            println!("sqlite round {round}: enqueue {enqueued:.0}/s drain {drained:.0}/s");
        }
    });
    Vec::new()
}

/// How fast this disk keeps a write, at the moment.
fn fsync(folder: &str) -> String {
    let programs = ["/usr/lib/postgresql/15/bin/pg_test_fsync", "pg_test_fsync"];
    for program in programs {
        let file = format!("{folder}/fsync-probe");
        let out = Command::new(program).args(["-s", "1", "-f", &file]).output();
        if let Ok(out) = out {
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let line = text.lines().find(|line| line.trim_start().starts_with("fdatasync"));
            return line.unwrap_or("no fdatasync").trim().to_owned();
        }
    }
    "pg_test_fsync is not installed".to_owned()
}

struct Ours {
    jobs: Jobs,
    db: Database,
}

impl Ours {
    async fn open(url: &str) -> Self {
        let clock = SystemClock::shared();
        let db = Database::connect(&DbConfig::at(url), Arc::clone(&clock)).await.expect("connects");
        let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).expect("sound");
        migrator.run().await.expect("migrates");
        let mut config = JobsConfig::default();
        config.concurrency = 64;
        Self { jobs: Jobs::new(SqlStore::new(db.clone()), config, clock), db }
    }

    /// Jobs enqueued per second, ten thousand at a time.
    async fn enqueue(&self, count: usize) -> f64 {
        let context = Context::new(Source::Internal, &SystemClock);
        let began = Instant::now();
        for _ in 0..count / 10_000 {
            let jobs = (0..10_000).map(|n| NewJob::new("noop", json!({ "n": n, "text": "forty bytes or so" }))).collect();
            self.jobs.enqueue_many(&context, jobs).await.expect("enqueued");
        }
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// Jobs run per second, from the first claim until the database says that all are done.
    async fn drain(&self, count: usize) -> f64 {
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        let handlers = Handlers::new().handle_value("noop", move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(serde_json::Value::Null) }
        });
        let worker = Worker::new(self.jobs.clone(), handlers).expect("sound");
        let began = Instant::now();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move { worker.run(async { let _ = stopped.await; }).await });
        // The database is asked only near the end: looking costs it more than it would seem.
        while ran.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        while self.finished().await < count as i64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = began.elapsed();
        let _ = stop.send(());
        running.await.expect("ends");
        count as f64 / took.as_secs_f64()
    }

    async fn finished(&self) -> i64 {
        use runtime_db::sqlx;
        // Leases end with their last job; cheap to ask while all is busy.
        if let Some(pool) = self.db.postgres() {
            let left: i64 = sqlx::query_scalar(
                "SELECT (EXISTS (SELECT 1 FROM runtime_jobs_ready) OR EXISTS (SELECT 1 FROM runtime_jobs_leases))::int::bigint",
            )
            .fetch_one(pool)
            .await
            .expect("answers");
            if left == 1 {
                return 0;
            }
            return sqlx::query_scalar("SELECT count(*) FROM runtime_jobs_finished").fetch_one(pool).await.expect("answers");
        }
        let pool = &self.db.sqlite().expect("one of the two").read;
        let left: i64 = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM runtime_jobs_ready) OR EXISTS (SELECT 1 FROM runtime_jobs_leases)",
        )
        .fetch_one(pool)
        .await
        .expect("answers");
        if left == 1 {
            return 0;
        }
        sqlx::query_scalar("SELECT count(*) FROM runtime_jobs_finished").fetch_one(pool).await.expect("answers")
    }
}
