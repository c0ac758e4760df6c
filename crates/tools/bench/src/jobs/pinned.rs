//! A transaction somebody forgot to end: it holds the horizon back, so nothing that is dead can be cleared away, while
//! jobs go on flowing.

use std::path::Path;
use std::time::{Duration, Instant};

use runtime_db::sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query_as, query_scalar};
use runtime_testkit::postgres::Server;
use tokio::sync::watch;

use super::queue::{Contender, Queue, Setting, on_queue};
use super::table::{fine, head, row, whole};
use super::{SETTINGS, drop_database, env, fsync};
use crate::report::{Better, Row, say};

const PARTS: u32 = 5;

/// Clients that enqueue while jobs flow.
const CLIENTS: u64 = 8;

/// How things stood at the end of one stretch.
struct Stretch {
    what: String,
    /// Jobs begun per second while so many a second were enqueued.
    flowed: f64,
    /// Jobs enqueued and not begun at its end.
    behind: usize,
    /// Jobs per second of a burst worked off at full speed.
    burst: f64,
    /// Dead rows and megabytes of all tables of the database.
    dead: f64,
    megabytes: f64,
}

pub async fn rows() -> Vec<Row> {
    let folder = env("FOLDER", "/var/tmp".to_owned());
    let seconds: u64 = env("PIN_SECONDS", 600);
    let server = Server::start_in(Path::new(&folder), &SETTINGS).await.expect("postgres is installed");
    let contenders = [Contender::Ours, Contender::Graphile(Setting::Local(5000))];
    let mut last = Vec::new();
    for (n, contender) in contenders.into_iter().enumerate() {
        let kept = fsync::per_second(&folder).map_or("no".to_owned(), whole);
        say(&format!("{} under a pin: {kept} fdatasync/s by pg_test_fsync", contender.name()));
        let name = format!("pinned_{n}");
        let url = server.create_database(&name).await.expect("a database");
        let found = on_queue!(contender, &url, queue => {
            let found = under_pin(&queue, &url, Duration::from_secs(seconds)).await;
            queue.close().await;
            found
        });
        let title = format!("{} while a transaction holds the horizon for {seconds} s", contender.name());
        let columns = ["stretch", "flow/s", "behind", "burst/s", "dead rows", "MB"];
        let command = format!("PART=pinned PIN_SECONDS={seconds} runtime-bench jobs-growth");
        head(&title, &command, &columns);
        for one in &found {
            let behind = whole(one.behind as f64);
            row(&[
                one.what.clone(),
                whole(one.flowed),
                behind,
                whole(one.burst),
                whole(one.dead),
                whole(one.megabytes),
            ]);
        }
        let kept = found.last().map_or(f64::NAN, |last| last.burst);
        say(&format!("of the burst without a pin kept at the end: {}", fine(kept / found[0].burst)));
        last.push(kept);
        drop_database(&server, &name).await;
    }
    vec![Row::of(
        "jobs",
        &format!("burst at the end of a pin of {seconds} s"),
        "jobs/s",
        Better::More,
        &[last[0]],
        (&contenders[1].name(), &[last[1]]),
    )]
}

/// A stretch without a pin, then the time of the pin in fifths.
async fn under_pin(queue: &impl Queue, url: &str, pinned: Duration) -> Vec<Stretch> {
    let (stop, told) = watch::channel(false);
    let stretches = async {
        let part = pinned / PARTS;
        let mut found =
            vec![stretch(queue, url, "no pin".to_owned(), part.min(Duration::from_secs(30))).await];
        let mut holder = PgConnection::connect(url).await.expect("connects");
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("begins");
        // A transaction that has written nothing has no number yet.
        query_scalar::<_, i64>("SELECT txid_current()").fetch_one(&mut holder).await.expect("a number");
        for n in 1..=PARTS {
            found.push(stretch(queue, url, format!("fifth {n}"), part).await);
        }
        holder.execute("ROLLBACK").await.expect("ends");
        stop.send(true).expect("a worker listens");
        found
    };
    tokio::join!(queue.work(told), stretches).1
}

/// Lets jobs flow at a steady rate, then works off a burst, all within `time` or a little more.
async fn stretch(queue: &impl Queue, url: &str, what: String, time: Duration) -> Stretch {
    let (rate, burst): (u64, usize) = (env("PIN_RATE", 2_000), env("PIN_BURST", 50_000));
    let began = Instant::now();
    let before = queue.ran();
    // Several clients, so that one commit need not wait for another.
    let client = async || {
        let mut sent = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(10 * CLIENTS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        while began.elapsed() < time {
            tick.tick().await;
            let lot = usize::try_from(rate / 100).expect("a lot");
            queue.enqueue(lot).await;
            sent += lot;
        }
        sent
    };
    let all = tokio::join!(client(), client(), client(), client(), client(), client(), client(), client());
    let sent = all.0 + all.1 + all.2 + all.3 + all.4 + all.5 + all.6 + all.7;
    let flowed = (queue.ran() - before) as f64 / began.elapsed().as_secs_f64();
    let behind = (before + sent).saturating_sub(queue.ran());
    wait_for(queue, before + sent).await;
    let began = Instant::now();
    queue.enqueue(burst).await;
    wait_for(queue, before + sent + burst).await;
    let burst = burst as f64 / began.elapsed().as_secs_f64();
    // The server's counts come a second late.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut connection = PgConnection::connect(url).await.expect("connects");
    let sql = "SELECT COALESCE(sum(n_dead_tup), 0)::float8,
               (COALESCE(sum(pg_total_relation_size(relid)), 0) / 1e6)::float8 FROM pg_stat_user_tables";
    let (dead, megabytes) = query_as(AssertSqlSafe(sql)).fetch_one(&mut connection).await.expect("answers");
    say(&format!("  {what}: flow {}/s, burst {}/s, {} dead rows", whole(flowed), whole(burst), whole(dead)));
    Stretch { what, flowed, behind, burst, dead, megabytes }
}

async fn wait_for(queue: &impl Queue, ran: usize) {
    while queue.ran() < ran {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
