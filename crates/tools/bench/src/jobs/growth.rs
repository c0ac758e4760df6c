//! What a claim and its report cost the server, and how fast a backlog is drained, as it grows from 10³ to 10⁷.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime_db::sqlx::{self, Connection, PgPool};
use runtime_jobs::store::{ClaimRequest, Report, Verdict};
use runtime_testkit::postgres::Server;
use tokio::sync::watch;

use super::ours::Ours;
use super::queue::Queue;
use super::table::{Rounds, fine, head, row, whole};
use super::{SETTINGS, env, fsync};
use crate::report::say;

/// Jobs claimed and reported together.
const BATCH: u32 = 500;

/// Batches measured at each size, after two that are not.
const BATCHES: usize = 20;

/// At most so many jobs are drained at each size.
const DRAINED: usize = 100_000;

pub async fn backlog() {
    let folder = env("FOLDER", "/var/tmp".to_owned());
    let sizes = env("SIZES", "1000,10000,100000,1000000,10000000".to_owned());
    let mut settings = SETTINGS.to_vec();
    settings.push(("shared_preload_libraries", "pg_stat_statements"));
    settings.push(("max_wal_size", "8GB"));
    let server = Server::start_in(Path::new(&folder), &settings).await.expect("postgres is installed");
    let url = server.create_database("growth").await.expect("a database");
    let ours = Ours::open(&url).await;
    let pool = ours.db.postgres().expect("Postgres").clone();
    sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&pool).await.expect("installed");
    let columns = [
        "backlog",
        "enqueue/s",
        "claim + report of 500, ms",
        "min",
        "max",
        "server ms",
        "blocks",
        "WAL KiB",
        "drain/s",
    ];
    let mut rows = Vec::new();
    let mut waiting = 0;
    for size in sizes.split(',').map(|size| size.trim().parse::<usize>().expect("a size")) {
        let kept = fsync::per_second(&folder).map_or("no".to_owned(), whole);
        let enqueued = top_up(&ours, &url, waiting, size).await;
        let (took, cost) = batches(&ours, &pool, size).await;
        let (drained, left) = drain(&ours, size).await;
        waiting = left;
        let blocks = whole(cost.blocks / BATCHES as f64);
        let server = fine(cost.ms / BATCHES as f64);
        let wal = whole(cost.wal / 1024.0 / BATCHES as f64);
        say(&format!("backlog {}: {kept} fdatasync/s, drain {}/s", whole(size as f64), whole(drained)));
        let [mid, min, max] = [took.median(), low(&took), high(&took)].map(fine);
        rows.push([whole(size as f64), whole(enqueued), mid, min, max, server, blocks, wal, whole(drained)]);
    }
    head("Cost by the size of the backlog", "PART=backlog runtime-bench jobs-growth", &columns);
    for cells in rows {
        row(&cells);
    }
    ours.close().await;
}

/// Fills the backlog up to a size, and says how many were enqueued per second.
async fn top_up(ours: &Ours, url: &str, waiting: usize, size: usize) -> f64 {
    let count = size.saturating_sub(waiting);
    let began = Instant::now();
    ours.enqueue(count).await;
    let took = began.elapsed();
    // What was written meanwhile is not to be paid for by what comes next.
    // Nor may it be cut short by the limit on statements.
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connects");
    sqlx::query("CHECKPOINT").execute(&mut connection).await.expect("done");
    count as f64 / took.as_secs_f64()
}

/// What statements cost the server.
struct Cost {
    /// Milliseconds of planning and running.
    ms: f64,
    /// Blocks looked at.
    blocks: f64,
    /// Bytes of log.
    wal: f64,
}

/// Claims and reports at this size, which is kept, and times each: as seen from here, and as the server counts it.
async fn batches(ours: &Ours, pool: &PgPool, size: usize) -> (Rounds, Cost) {
    let request = ClaimRequest {
        worker: "bench".to_owned(),
        queues: vec!["default".to_owned()],
        kinds: vec!["noop".to_owned()],
        max: BATCH,
        lease: Duration::from_secs(60),
        limits: BTreeMap::new(),
    };
    let (mut found, mut cost) = (Rounds::default(), Cost { ms: 0.0, blocks: 0.0, wal: 0.0 });
    for n in 0..BATCHES + 2 {
        sqlx::query("SELECT pg_stat_statements_reset()").execute(pool).await.expect("reset");
        let began = Instant::now();
        let claimed = ours.jobs.store().claim(&request).await.expect("claims");
        let done = |job: &runtime_jobs::store::Claimed| Report {
            id: job.id,
            fence: job.fence,
            verdict: Verdict::Completed(serde_json::Value::Null),
        };
        ours.jobs.store().report(claimed.iter().map(done).collect()).await.expect("reports");
        let took = began.elapsed();
        assert_eq!(claimed.len(), (BATCH as usize).min(size), "the backlog is kept");
        if n >= 2 {
            found.0.push(took.as_secs_f64() * 1e3);
            let (ms, blocks, wal): (f64, i64, f64) = sqlx::query_as(
                "SELECT sum(total_exec_time + total_plan_time), sum(shared_blks_hit + shared_blks_read)::bigint,
                 sum(wal_bytes)::float8 FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'",
            )
            .fetch_one(pool)
            .await
            .expect("answers");
            cost.ms += ms;
            cost.blocks += blocks as f64;
            cost.wal += wal;
        }
        ours.enqueue(claimed.len()).await;
    }
    (found, cost)
}

/// Jobs run per second over the first of a backlog, and how many are left in the end.
async fn drain(ours: &Ours, size: usize) -> (f64, usize) {
    let (stop, told) = watch::channel(false);
    let (before, wanted) = (ours.ran(), size.min(DRAINED));
    let began = Instant::now();
    let timed = async {
        while ours.ran() - before < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = began.elapsed();
        stop.send(true).expect("a worker listens");
        took
    };
    let ((), took) = tokio::join!(ours.work(told), timed);
    (wanted as f64 / took.as_secs_f64(), size - (ours.ran() - before).min(size))
}

fn low(rounds: &Rounds) -> f64 {
    rounds.0.iter().copied().fold(f64::INFINITY, f64::min)
}

fn high(rounds: &Rounds) -> f64 {
    rounds.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
