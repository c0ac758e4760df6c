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

use crate::report::{Better, Row};

/// Jobs drained in one round.
const JOBS: usize = 100_000;

const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "1GB"), ("max_wal_size", "4GB"), ("checkpoint_timeout", "30min")];

pub fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut rows = Vec::new();
    for (name, folder) in [("tmpfs", "/dev/shm"), ("disk", "/var/tmp")] {
        println!("{name}: {}", fsync(folder));
        let [ours, enqueue, peer, peer_enqueue] = runtime.block_on(on_postgres(folder, rounds));
        let row = |what: &str, ours: &[f64], peer: &[f64]| {
            let row = format!("{what}, Postgres, {name}");
            Row::of("jobs", &row, "jobs/s", Better::More, ours, ("graphile_worker", peer))
        };
        rows.push(row("drain", &ours, &peer));
        rows.push(row("enqueue 10k at a time", &enqueue, &peer_enqueue));
    }
    let latency = runtime.block_on(start_latency(rounds));
    rows.push(Row::of("jobs", "p99 start at 1000 jobs/s, disk", "ms", Better::Less, &latency, ("asked at most", &[10.0])));
    let [drained, enqueued] = runtime.block_on(on_sqlite(rounds));
    rows.push(Row::of("jobs", "drain, SQLite, disk", "jobs/s", Better::More, &drained, ("asked", &[10_000.0])));
    rows.push(Row::of("jobs", "enqueue, SQLite, disk", "jobs/s", Better::More, &enqueued, ("asked", &[10_000.0])));
    rows
}

async fn on_postgres(folder: &str, rounds: usize) -> [Vec<f64>; 4] {
    let server = Server::start_in(Path::new(folder), &SETTINGS).await.expect("postgres is installed");
    let mut found: [Vec<f64>; 4] = Default::default();
    // The first round warms the server up: its memory and its log are touched for the first time.
    for round in 0..=rounds {
        let url = server.create_database(&format!("ours_{round}")).await.expect("a database");
        let ours = Ours::open(&url).await;
        let enqueued = ours.enqueue(JOBS).await;
        let drained = ours.drain(JOBS).await;
        ours.db.close().await;
        let url = server.create_database(&format!("peer_{round}")).await.expect("a database");
        let peer = graphile::drain(&url, JOBS).await;
        if round > 0 {
            for (list, value) in found.iter_mut().zip([drained, enqueued, peer.1, peer.0]) {
                list.push(value);
            }
        }
    }
    found
}

async fn on_sqlite(rounds: usize) -> [Vec<f64>; 2] {
    let mut found: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let ours = Ours::open(&format!("sqlite:{}", folder.path().join("jobs.db").display())).await;
        let enqueued = ours.enqueue(JOBS).await;
        found[0].push(ours.drain(JOBS).await);
        found[1].push(enqueued);
    }
    found
}

/// Milliseconds between enqueueing and beginning that 99 of 100 jobs stay below, at a thousand single jobs a second.
async fn start_latency(rounds: usize) -> Vec<f64> {
    let server = Server::start_in(Path::new("/var/tmp"), &SETTINGS).await.expect("postgres is installed");
    let url = server.create_database("latency").await.expect("a database");
    let ours = Ours::open(&url).await;
    let seen: Arc<std::sync::Mutex<Vec<f64>>> = Arc::default();
    let (told, zero) = (Arc::clone(&seen), Instant::now());
    let handlers = Handlers::new().handle_value("noop", move |_, payload| {
        let sent = Duration::from_micros(payload.as_u64().expect("a time"));
        told.lock().expect("no panic").push((zero.elapsed() - sent).as_secs_f64() * 1e3);
        async { Ok(serde_json::Value::Null) }
    });
    let worker = Worker::new(ours.jobs.clone(), handlers).expect("sound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { worker.run(async { drop(stopped.await) }).await });
    let context = Context::new(Source::Internal, &SystemClock);
    let mut found = Vec::new();
    for _ in 0..rounds {
        seen.lock().expect("no panic").clear();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..3_000 {
            tick.tick().await;
            let (jobs, context) = (ours.jobs.clone(), context.clone());
            sending.spawn(async move {
                let now = u64::try_from(zero.elapsed().as_micros()).expect("not that long");
                jobs.enqueue(&context, NewJob::new("noop", json!(now))).await.expect("enqueued");
            });
        }
        while sending.join_next().await.is_some() {}
        while seen.lock().expect("no panic").len() < 3_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut all = seen.lock().expect("no panic").clone();
        all.sort_by(f64::total_cmp);
        found.push(all[all.len() * 99 / 100]);
    }
    let _ = stop.send(());
    running.await.expect("ends");
    found
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

/// graphile_worker at its own benchmark's settings: local queue of 5000, completions batched for 5 ms.
mod graphile {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use graphile_worker::{
        IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions,
    };
    use runtime_db::sqlx::{self, postgres::PgPoolOptions};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug)]
    struct Ran(Arc<AtomicU64>);

    #[derive(Deserialize, Serialize)]
    struct Noop {
        n: usize,
        text: String,
    }

    impl TaskHandler for Noop {
        const IDENTIFIER: &'static str = "noop";

        async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
            if let Some(ran) = context.get_ext::<Ran>() {
                ran.0.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        }
    }

    /// Jobs enqueued and drained per second.
    pub(super) async fn drain(url: &str, count: usize) -> (f64, f64) {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await.expect("connects");
        let ran = Arc::new(AtomicU64::new(0));
        let worker = WorkerOptions::default()
            .pg_pool(pool.clone())
            .concurrency(500)
            .poll_interval(Duration::from_millis(5))
            .complete_job_batch_delay(Duration::from_millis(5))
            .local_queue(LocalQueueConfig::default().with_size(5000))
            .add_extension(Ran(Arc::clone(&ran)))
            .define_job::<Noop>()
            .init()
            .await
            .expect("migrates");
        let utils = worker.create_utils();
        let began = Instant::now();
        for _ in 0..count / 10_000 {
            let job = |n| RawJobSpec {
                identifier: "noop".to_owned(),
                payload: serde_json::json!({ "n": n, "text": "forty bytes or so" }),
                spec: JobSpec::default(),
            };
            utils.add_raw_jobs(&(0..10_000).map(job).collect::<Vec<_>>()).await.expect("enqueued");
        }
        let enqueued = count as f64 / began.elapsed().as_secs_f64();
        let worker = Arc::new(worker);
        let began = Instant::now();
        let runs = Arc::clone(&worker);
        let running = tokio::spawn(async move { runs.run().await });
        while ran.load(Ordering::Relaxed) < count as u64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        loop {
            let left: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM graphile_worker._private_jobs)")
                .fetch_one(&pool)
                .await
                .expect("answers");
            if !left {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = began.elapsed();
        worker.request_shutdown();
        let _ = running.await;
        pool.close().await;
        (enqueued, count as f64 / took.as_secs_f64())
    }
}
