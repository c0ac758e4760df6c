//! What an idle queue asks of the database, and what a job adds to a transaction of the user's, counted on the wire.

use std::path::Path;
use std::time::Duration;

use runtime_db::sqlx::{Connection, Executor, PgConnection};
use runtime_testkit::postgres::Server;
use tokio::sync::watch;

use super::queue::{Contender, Queue, Setting, on_queue};
use super::table::{fine, head, row};
use super::wire::Wire;
use super::{SETTINGS, env};
use crate::report::{Better, Row, say};

const CONTENDERS: [Contender; 6] = [
    Contender::Ours,
    Contender::Graphile(Setting::Defaults),
    Contender::Graphile(Setting::Local(5000)),
    Contender::Apalis(10),
    Contender::Awa(64),
    Contender::Underway,
];

pub async fn rows() -> Vec<Row> {
    let server = Server::start_in(Path::new("/dev/shm"), &SETTINGS).await.expect("postgres is installed");
    let window = Duration::from_secs(env("IDLE_SECONDS", 20));
    let mut found = Vec::new();
    for (n, contender) in CONTENDERS.into_iter().enumerate() {
        let url = server.create_database(&format!("idle_{n}")).await.expect("a database");
        let mut connection = PgConnection::connect(&url).await.expect("connects");
        connection.execute("CREATE TABLE users (id bigint)").await.expect("made");
        let wire = Wire::before(&url).await;
        let each = on_queue!(contender, &wire.through(&url), queue => {
            let idle = idle(&queue, &wire, window).await;
            let within = within(&queue, &wire).await;
            let alone = alone(&queue, &wire).await;
            queue.close().await;
            (idle, within, alone)
        });
        say(&format!("{}: {:.2} statements/s idle", contender.name(), each.0.0));
        found.push(each);
    }
    let seconds = window.as_secs();
    let command = format!("IDLE_SECONDS={seconds} runtime-bench jobs-idle");
    let columns = ["queue, one idle worker", "statements/s", "round trips/s"];
    head("An idle queue", &command, &columns);
    for (contender, ((statements, trips), ..)) in CONTENDERS.iter().zip(&found) {
        row(&[contender.name(), fine(*statements), fine(*trips)]);
    }
    let columns = [
        "queue",
        "statements of the transaction",
        "round trips",
        "of them for the job",
        "round trips of a job alone",
    ];
    head("A job enqueued within the user's transaction", "runtime-bench jobs-idle", &columns);
    for (contender, (_, [without, with], alone)) in CONTENDERS.iter().zip(&found) {
        row(&[contender.name(), fine(with.0), fine(with.1), fine(with.1 - without.1), alone.to_string()]);
    }
    let ours = &found[0];
    vec![
        Row::of("jobs", "idle queue", "statements/s", Better::Less, &[ours.0.0], ("asked at most", &[2.0])),
        Row::of(
            "jobs",
            "round trips added by enqueue_in",
            "trips",
            Better::Less,
            &[ours.1[1].1 - ours.1[0].1],
            ("asked at most", &[1.0]),
        ),
    ]
}

/// Statements and round trips per second of an idle worker, once it has settled.
async fn idle(queue: &impl Queue, wire: &Wire, window: Duration) -> (f64, f64) {
    let (stop, told) = watch::channel(false);
    let counted = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = wire.asked();
        tokio::time::sleep(window).await;
        let after = wire.asked();
        stop.send(true).expect("a worker listens");
        let seconds = window.as_secs_f64();
        (
            (after.statements - before.statements) as f64 / seconds,
            (after.trips - before.trips) as f64 / seconds,
        )
    };
    tokio::join!(queue.idle(told), counted).1
}

/// Statements and round trips of one transaction, its `COMMIT` among them, without a job and with one.
async fn within(queue: &impl Queue, wire: &Wire) -> [(f64, f64); 2] {
    const TIMES: u64 = 20;
    let mut found = [(0.0, 0.0); 2];
    for (with_job, found) in [false, true].into_iter().zip(&mut found) {
        // Prepares the statements.
        for _ in 0..30 {
            queue.enqueue_within(with_job, || ()).await;
        }
        let mut all = (0, 0);
        for _ in 0..TIMES {
            // What is said after a commit, to wake workers, is no part of it.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let (before, mut after) = (wire.asked(), None);
            queue.enqueue_within(with_job, || after = Some(wire.asked())).await;
            let after = after.expect("told");
            all.0 += after.statements - before.statements + 1;
            all.1 += after.trips - before.trips + 1;
        }
        *found = (all.0 as f64 / TIMES as f64, all.1 as f64 / TIMES as f64);
    }
    found
}

/// Round trips of a job enqueued alone. Of several times the least, since workers may be told meanwhile.
async fn alone(queue: &impl Queue, wire: &Wire) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let before = wire.asked();
        queue.enqueue(1).await;
        least = least.min(wire.asked().trips - before.trips);
    }
    least
}
