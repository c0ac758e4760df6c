//! A whole check: a server, workers, load, faults, a quiet end, and the judgement.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use runtime_jobs::store::{JobStore as _, Retention};
use runtime_jobs::{SqlStore, migrations};
use runtime_kernel::{Clock as _, SystemClock};
use runtime_migrate::{MigrateOptions, Migrator};
use runtime_testkit::postgres::Server;
use tokio::task::JoinSet;

use crate::check::{Violation, check};
use crate::error::WorkcheckError;
use crate::history::{self, History};
use crate::load::{Feeder, open, rules};
use crate::nemesis::Victims;
use crate::record;
use crate::settings::{Broken, Settings};

/// How many enqueue at once.
const FEEDERS: u8 = 3;

/// How long the rest may take once all faults are over.
const QUIET: Duration = Duration::from_mins(1);

/// And with broken workers, which need not finish at all.
const QUIET_BROKEN: Duration = Duration::from_secs(10);

/// With more than this unfinished nothing is enqueued: under faults, workers may do less than is wanted of them for hours.
const BACKLOG: i64 = 1000;

/// What a check found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Jobs the database kept.
    pub jobs: usize,
    /// Lines of history.
    pub records: usize,
    /// Faults injected.
    pub faults: usize,
    /// Promises broken.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jobs, records, faults, violations } = self;
        write!(f, "{jobs} jobs, {records} records, {faults} faults, {} violations", violations.len())?;
        violations.iter().take(50).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs a whole check.
///
/// # Errors
/// What kept it from being made; what it found is its outcome.
pub async fn run(settings: &Settings) -> Result<Outcome, WorkcheckError> {
    // One of its own for each run: two histories in one would contradict each other.
    let folder = settings.folder.join(format!("{}-seed-{}", history::now(), settings.seed));
    std::fs::create_dir_all(&folder)?;
    let settings = Settings { folder: folder.canonicalize()?, ..settings.clone() };
    let server = Server::start().await?;
    let url = server.create_database("work").await?;
    let db = open(&url, 4, SystemClock::shared()).await?;
    let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default())?;
    migrator.run().await?;
    let mut victims = Victims::new(server, url.clone(), &settings);
    for _ in 0..settings.workers.max(1) {
        let worker = victims.spawn()?;
        victims.workers.push(worker);
    }
    let over = Arc::new(AtomicBool::new(false));
    let full = Arc::new(AtomicBool::new(false));
    let history = History::create(&settings.folder.join("driver.jsonl"))?;
    let mut busy = JoinSet::new();
    let next = Arc::new(AtomicU64::new(1));
    for number in 0..FEEDERS {
        let feeder = Feeder::open(&url, settings.seed, number, Arc::clone(&next), history.clone()).await?;
        busy.spawn(feed(feeder, settings.rate, Arc::clone(&full), Arc::clone(&over)));
    }
    busy.spawn(prune(SqlStore::new(db.clone()), Arc::clone(&over)));
    let pool = db.postgres().ok_or(runtime_db::DbError::Closed)?;
    let end = SystemClock.now() + settings.duration;
    while SystemClock.now() < end {
        // When the server is away, as it was before.
        if let Ok(unfinished) = record::unfinished(pool).await {
            full.store(unfinished > BACKLOG, Ordering::Release);
        }
        if settings.faults {
            victims.strike().await?;
        } else {
            SystemClock.sleep(Duration::from_millis(100)).await;
        }
    }
    over.store(true, Ordering::Release);
    while busy.join_next().await.is_some() {}
    let quiet = if settings.broken == Broken::No { QUIET } else { QUIET_BROKEN };
    let end = SystemClock.now() + quiet;
    while SystemClock.now() < end && record::unfinished(pool).await? > 0 {
        SystemClock.sleep(Duration::from_millis(100)).await;
    }
    let mut stuck = Vec::new();
    for worker in &victims.workers {
        worker.sigterm()?;
    }
    for worker in &mut victims.workers {
        if worker.exit().await.is_err() {
            stuck.push(format!("worker {}", worker.pid()));
        }
    }
    let mut ending = record::ending(pool, &SqlStore::new(db.clone())).await?;
    ending.stuck = stuck;
    let records = history::read(&settings.folder)?;
    let violations = check(&records, &ending, &rules());
    let (jobs, records, faults) = (ending.jobs.len(), records.len(), victims.faults);
    Ok(Outcome { jobs, records, faults, violations })
}

async fn feed(mut feeder: Feeder, rate: u64, full: Arc<AtomicBool>, over: Arc<AtomicBool>) {
    let pause = Duration::from_micros(u64::from(FEEDERS) * 1_000_000 / rate.max(1));
    while !over.load(Ordering::Acquire) {
        if !full.load(Ordering::Acquire) {
            feeder.enqueue().await;
        }
        SystemClock.sleep(pause).await;
    }
}

/// Forgets idle slots all the time, where a service does it once a minute.
async fn prune(store: SqlStore, over: Arc<AtomicBool>) {
    let nothing = Retention { completed: None, dead: None, cancelled: None };
    while !over.load(Ordering::Acquire) {
        let _ = store.prune(&nothing, 1).await;
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}
