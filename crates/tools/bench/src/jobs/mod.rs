//! Background jobs: how fast a backlog is drained, enqueued and begun, what an idle queue asks, and how cost grows,
//! beside other queues on the same Postgres.
//!
//! - `runtime-bench jobs`: `ROUNDS` (5), `COLUMN` (`tmpfs` or `disk` alone), `ONLY` (part of a peer's name), `JOBS` and
//!   `JOBS_*` (how many each drains), `LATENCY_JOBS` (3000).
//! - `runtime-bench jobs-idle`: `IDLE_SECONDS` (20).
//! - `runtime-bench jobs-growth`: `PART` (`backlog`, `keys` or `pinned` alone), `FOLDER` (`/var/tmp`), `SIZES`, `ROUNDS` (3)
//!   and `KEYS` (100000), `PIN_SECONDS` (600), `PIN_RATE` (2000) and `PIN_BURST` (50000).

mod fsync;
mod growth;
mod idle;
mod keyed;
mod latency;
mod ours;
mod peers;
mod pinned;
mod queue;
mod table;
mod wire;

use std::path::Path;
use std::str::FromStr;

use runtime_testkit::postgres::Server;

use self::ours::Ours;
use self::queue::{Contender, Queue, drain_rate, enqueue_rate};
use self::table::{Rounds, head, row, whole};
use crate::report::{Better, Row, say};

const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "1GB"), ("max_wal_size", "4GB"), ("checkpoint_timeout", "30min")];

/// Drain and enqueue beside the peers, start latency, SQLite.
pub fn rows() -> Vec<Row> {
    block_on(async {
        let rounds = env("ROUNDS", 5);
        let mut rows = Vec::new();
        for (name, folder) in [("tmpfs", "/dev/shm"), ("disk", "/var/tmp")] {
            if env("COLUMN", name.to_owned()) == name {
                rows.extend(beside_peers(name, folder, rounds).await);
            }
        }
        let latency = latency::p99(rounds).await;
        rows.push(Row::of(
            "jobs",
            "p99 start at 1000 jobs/s, disk",
            "ms",
            Better::Less,
            &latency,
            ("asked at most", &[10.0]),
        ));
        let [drained, enqueued] = on_sqlite(rounds).await;
        rows.push(Row::of(
            "jobs",
            "drain, SQLite, disk",
            "jobs/s",
            Better::More,
            &drained,
            ("asked", &[10_000.0]),
        ));
        rows.push(Row::of(
            "jobs",
            "enqueue, SQLite, disk",
            "jobs/s",
            Better::More,
            &enqueued,
            ("asked", &[10_000.0]),
        ));
        rows
    })
}

/// How cost grows: the backlog, a pinned horizon, many keys. `PART` names one of them.
pub fn growth_rows() -> Vec<Row> {
    block_on(async {
        let part = env("PART", "all".to_owned());
        let mut rows = Vec::new();
        for name in ["backlog", "keys", "pinned"] {
            if part == "all" || part == name {
                match name {
                    "backlog" => growth::backlog().await,
                    "keys" => rows.extend(keyed::rows().await),
                    _ => rows.extend(pinned::rows().await),
                }
            }
        }
        rows
    })
}

/// What an idle queue asks of the database, and what enqueueing adds to a transaction.
pub fn idle_rows() -> Vec<Row> {
    block_on(idle::rows())
}

/// Every contender once per round, in turn, each in a database of its own on one server.
async fn beside_peers(column: &str, folder: &str, rounds: usize) -> Vec<Row> {
    let server = Server::start_in(Path::new(folder), &SETTINGS).await.expect("postgres is installed");
    let only = env("ONLY", String::new());
    let contenders: Vec<Contender> =
        Contender::ALL.into_iter().filter(|c| *c == Contender::Ours || c.name().contains(&only)).collect();
    let mut drained = vec![Rounds::default(); contenders.len()];
    let mut enqueued = drained.clone();
    // The first lap warms the server up: its memory and its log are touched for the first time.
    let url = server.create_database("warm").await.expect("a database");
    Contender::Ours.round(&url).await;
    for round in 0..rounds {
        let kept = fsync::per_second(folder).map_or("pg_test_fsync is not installed".to_owned(), whole);
        say(&format!("{column}, round {}: {kept} fdatasync/s by pg_test_fsync", round + 1));
        for (n, contender) in contenders.iter().enumerate() {
            let name = format!("round_{round}_{n}");
            let url = server.create_database(&name).await.expect("a database");
            let (enqueue, drain) = contender.round(&url).await;
            say(&format!("  {}: drain {} enqueue {}", contender.name(), whole(drain), whole(enqueue)));
            drained[n].0.push(drain);
            enqueued[n].0.push(enqueue);
            drop_database(&server, &name).await;
        }
    }
    let columns = ["queue", "jobs", "drain/s", "min", "max", "enqueue/s", "min", "max"];
    let command = format!("ROUNDS={rounds} runtime-bench jobs");
    head(&format!("Durable drain of no-op jobs, {column}"), &command, &columns);
    for (n, contender) in contenders.iter().enumerate() {
        let jobs = whole(contender.jobs() as f64);
        row(&[contender.name(), jobs, drained[n].cells(), enqueued[n].cells()]);
    }
    let row = |what: &str, all: &[Rounds]| {
        let best = (1..all.len()).max_by(|a, b| all[*a].median().total_cmp(&all[*b].median()))?;
        let (name, row) = (contenders[best].name(), format!("{what}, Postgres, {column}"));
        Some(Row::of("jobs", &row, "jobs/s", Better::More, &all[0].0, (&name, &all[best].0)))
    };
    [row("drain", &drained), row("enqueue 10k at a time", &enqueued)].into_iter().flatten().collect()
}

async fn on_sqlite(rounds: usize) -> [Vec<f64>; 2] {
    let count = env("JOBS", 100_000);
    let mut found: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let ours = Ours::open(&format!("sqlite:{}", folder.path().join("jobs.db").display())).await;
        found[1].push(enqueue_rate(&ours, count).await);
        found[0].push(drain_rate(&ours, 0, count).await);
        ours.close().await;
    }
    found
}

/// Drops a database, whoever is connected.
async fn drop_database(server: &Server, name: &str) {
    use runtime_db::sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
    let mut connection = PgConnection::connect(&server.url("postgres")).await.expect("connects");
    let sql = format!("DROP DATABASE {name} WITH (FORCE)");
    connection.execute(AssertSqlSafe(sql)).await.expect("dropped");
}

/// What the environment says, or else this.
fn env<T: FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn block_on<T>(run: impl Future<Output = T>) -> T {
    // What goes wrong is to be seen.
    let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(run)
}
