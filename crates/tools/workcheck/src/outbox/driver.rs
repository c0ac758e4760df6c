//! A whole check: too much is added too fast, processes die, the rest is sent, and the judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use runtime_db::sqlx;
use runtime_kernel::{Clock as _, SystemClock};
use runtime_migrate::{MigrateOptions, Migrator};
use runtime_outbox::SqlOutbox;
use runtime_telemetry::Metrics;
use runtime_testkit::postgres::Server;
use tokio::task::JoinSet;

use super::check::{Ending, check};
use super::consumer::TABLES;
use super::feeder::Feeder;
use super::relay::config;
use super::scene::{Scene, pool};
use super::{Event, OutboxSettings};
use crate::check::Violation;
use crate::error::WorkcheckError;
use crate::herd::Herd;
use crate::history::{self, History, Record, now};
use crate::load::open;
use crate::rng::Rng;

/// How many add at once.
const FEEDERS: u32 = 3;

/// What has not changed for so long changes no more.
const STILL: Duration = Duration::from_secs(8);

/// What a check found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// Messages whose adding was acknowledged.
    pub added: u64,
    /// In how much time.
    pub took: Duration,
    /// Effects applied.
    pub effects: usize,
    /// Messages sinks took a second time or more often.
    pub repeated: usize,
    /// Messages that came to a consumer again.
    pub absorbed: usize,
    /// Messages parked.
    pub parked: usize,
    /// Processes killed.
    pub killed: usize,
    /// Processes frozen beyond their leases.
    pub frozen: usize,
    /// Restarts of the database and of NATS.
    pub restarts: [usize; 2],
    /// The most that was unsent, and the oldest of it in seconds, by the metrics.
    pub peak: (f64, f64),
    /// How long after the last was added until nothing was unsent.
    pub recovered: Duration,
    /// Promises broken.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, took, effects, repeated, absorbed, parked, killed, frozen, .. } = self;
        let [database, nats] = self.restarts;
        writeln!(f, "{added} messages added in {took:.1?}, {effects} effects, {parked} parked")?;
        writeln!(f, "{repeated} sent again by relays, {absorbed} absorbed by the inbox")?;
        writeln!(f, "{killed} killed, {frozen} frozen, {database} restarts of the database, {nats} of NATS")?;
        let (most, oldest) = self.peak;
        writeln!(
            f,
            "at most {most:.0} unsent, the oldest for {oldest:.1} s; all sent {:.1?} after the last was added",
            self.recovered
        )?;
        write!(f, "{} violations", self.violations.len())?;
        self.violations.iter().take(50).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs a whole check.
///
/// # Errors
/// What kept it from being made; what it found is its outcome.
pub async fn run(settings: &OutboxSettings) -> Result<Outcome, WorkcheckError> {
    let folder = settings.folder.join(format!("outbox-{}-seed-{}", now(), settings.seed));
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let history = History::create(&folder.join("driver.jsonl"))?;
    let server = Server::start().await?;
    let url = server.create_database("work").await?;
    let nats = if settings.nats { Some(runtime_testkit::nats::own().await?) } else { None };
    let db = open(&url, 8, SystemClock::shared()).await?;
    let sets = vec![runtime_events::migrations::SET, runtime_outbox::migrations::SET];
    Migrator::new(db.clone(), sets, MigrateOptions::default())?.run().await?;
    sqlx::raw_sql(TABLES).execute(pool(&db)?).await?;
    let mut scene = Scene {
        outbox: SqlOutbox::new(db.clone()),
        db,
        server,
        nats,
        herd: Herd::new(settings.program.clone(), folder.clone()),
        rng: Rng::new(settings.seed, 0),
        parked: BTreeSet::new(),
        held: BTreeMap::new(),
        restarts: [0, 0],
        strikes: 0,
    };
    scene.populate(settings, &url)?;
    let metrics = Metrics::new();
    let mut watch = JoinSet::new();
    scene.watch(&mut watch, settings, &metrics, &history)?;
    let mut feeders = feed(settings, &url, &history, &scene.outbox).await?;
    let began = SystemClock.now();
    let mut halfway = settings.nats;
    while since(began) < settings.duration {
        if halfway && since(began) * 2 > settings.duration {
            halfway = false;
            scene.restart_nats().await?;
        }
        scene.strike(settings.faults).await?;
    }
    let mut outcome = Outcome::default();
    while let Some(added) = feeders.join_next().await {
        outcome.added += added.unwrap_or_default();
    }
    outcome.took = since(began);
    let last = SystemClock.now();
    let mut still = Still::default();
    // Faults go on as long again, or until all is sent.
    while let Some(unsent) = scene.unsent().await.filter(|unsent| *unsent > 0) {
        if still.is(unsent) {
            break;
        }
        scene.strike(settings.faults && since(last) < settings.duration).await?;
        scene.let_go().await?;
    }
    outcome.recovered = since(last);
    let mut still = Still::default();
    while let Some(missing) = scene.missing(&folder).await?.filter(|missing| *missing > 0) {
        if still.is(missing) {
            break;
        }
        SystemClock.sleep(Duration::from_millis(100)).await;
    }
    // Measured once more.
    SystemClock.sleep(config(settings.on_parked).housekeeping * 4).await;
    watch.shutdown().await;
    outcome.restarts = scene.restarts;
    (outcome.killed, outcome.frozen) = (scene.herd.killed, scene.herd.frozen);
    let ending = scene.end().await?;
    let records: Vec<Record<Event>> = history::read(&folder)?;
    outcome.tell(&records, &ending);
    outcome.violations = check(&records, &ending);
    Ok(outcome)
}

/// Those who add, each with its own connections.
async fn feed(
    settings: &OutboxSettings,
    url: &str,
    history: &History,
    outbox: &SqlOutbox,
) -> Result<JoinSet<u64>, WorkcheckError> {
    let mut feeders = JoinSet::new();
    let next = Arc::new(AtomicU64::new(1));
    for number in 0..FEEDERS {
        let feeder = Feeder {
            number: u64::from(number),
            rng: Rng::new(settings.seed, u64::from(number) + 1),
            next: Arc::clone(&next),
            history: history.clone(),
            db: open(url, 2, SystemClock::shared()).await?,
            outbox: outbox.clone(),
        };
        feeders.spawn(feeder.feed(settings.rate / FEEDERS, settings.duration));
    }
    Ok(feeders)
}

impl Outcome {
    fn tell(&mut self, records: &[Record<Event>], ending: &Ending) {
        self.effects = ending.effects.values().map(Vec::len).sum();
        self.parked = ending.parked.len();
        let mut sent = BTreeSet::new();
        for record in records {
            match &record.event {
                Event::Sent { messages } => {
                    self.repeated += messages.iter().filter(|message| !sent.insert(**message)).count();
                }
                Event::Absorbed { .. } => self.absorbed += 1,
                Event::Lag { oldest, unsent } => {
                    self.peak = (self.peak.0.max(*unsent), self.peak.1.max(*oldest));
                }
                _ => {}
            }
        }
    }
}

/// Whether a number has stopped changing.
#[derive(Default)]
struct Still(Option<(u64, Instant)>);

impl Still {
    fn is(&mut self, number: u64) -> bool {
        match self.0 {
            Some((seen, since_when)) if seen == number => since(since_when) > STILL,
            _ => {
                self.0 = Some((number, SystemClock.now()));
                false
            }
        }
    }
}

fn since(when: Instant) -> Duration {
    SystemClock.now().saturating_duration_since(when)
}
