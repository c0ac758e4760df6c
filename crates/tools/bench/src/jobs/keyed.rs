//! What limits cost: as many keys as there are customers, one job at a time each, beside jobs without keys.

use std::path::Path;

use runtime_testkit::postgres::Server;

use super::ours::Ours;
use super::queue::{Queue, drain_rate};
use super::table::{Rounds, head, row, whole};
use super::{SETTINGS, drop_database, env, fsync};
use crate::report::{Better, Row, say};

pub async fn rows() -> Vec<Row> {
    let folder = env("FOLDER", "/var/tmp".to_owned());
    let rounds: usize = env("ROUNDS", 3);
    let keys: usize = env("KEYS", 100_000);
    // How many jobs, over how many keys; no keys, no limits.
    let shapes = [(keys, 0), (keys, keys), (10 * keys, 0), (10 * keys, keys)];
    let server = Server::start_in(Path::new(&folder), &SETTINGS).await.expect("postgres is installed");
    let (mut enqueued, mut drained) = (vec![Rounds::default(); 4], vec![Rounds::default(); 4]);
    for round in 0..rounds {
        let kept = fsync::per_second(&folder).map_or("no".to_owned(), whole);
        say(&format!("keys, round {}: {kept} fdatasync/s by pg_test_fsync", round + 1));
        for (n, (count, keys)) in shapes.into_iter().enumerate() {
            let name = format!("keys_{round}_{n}");
            let ours = Ours::open(&server.create_database(&name).await.expect("a database")).await;
            let began = std::time::Instant::now();
            if keys == 0 {
                ours.enqueue(count).await;
            } else {
                ours.enqueue_keyed(count, keys).await;
            }
            enqueued[n].0.push(count as f64 / began.elapsed().as_secs_f64());
            drained[n].0.push(drain_rate(&ours, 0, count).await);
            ours.close().await;
            drop_database(&server, &name).await;
        }
    }
    let columns = ["jobs", "keys", "drain/s", "min", "max", "enqueue/s", "min", "max"];
    head("Keys with limits", &format!("PART=keys ROUNDS={rounds} runtime-bench jobs-growth"), &columns);
    for (n, (count, keys)) in shapes.into_iter().enumerate() {
        let keys =
            if keys == 0 { "none".to_owned() } else { format!("{}, one at a time each", whole(keys as f64)) };
        row(&[whole(count as f64), keys, drained[n].cells(), enqueued[n].cells()]);
    }
    let row = |n: usize, what: &str| {
        Row::of("jobs", what, "jobs/s", Better::More, &drained[n].0, ("without keys", &drained[n - 1].0))
    };
    vec![row(1, "drain, a job for each key"), row(3, "drain, ten jobs for each key")]
}
