//! The jobs that are enqueued, and what their handlers are to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime_db::{Database, DbConfig};
use runtime_jobs::{Jobs, JobsConfig, Limit, NewJob, SqlStore};
use runtime_kernel::{Clock as _, Context, SharedClock, Source, SystemClock, Timestamp};
use serde::{Deserialize, Serialize};

use crate::check::Rules;
use crate::clock::Skewed;
use crate::error::WorkcheckError;
use crate::history::{Event, History, now};
use crate::rng::Rng;

/// Jobs without a key.
pub(crate) const PLAIN: &str = "plain";
/// One of a key at once.
pub(crate) const SOLO: &str = "solo";
/// Two of a key at once.
pub(crate) const PAIR: &str = "pair";
/// Unique until done.
pub(crate) const ONCE: &str = "once";
/// Unique for [`WINDOW`].
pub(crate) const WINDOWED: &str = "windowed";
/// Completed in a transaction of its handler's.
pub(crate) const EFFECT: &str = "effect";

pub(crate) const KINDS: [&str; 6] = [PLAIN, SOLO, PAIR, ONCE, WINDOWED, EFFECT];

const WINDOW: Duration = Duration::from_secs(3);

/// What a handler is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) job: u64,
    /// How long it takes.
    pub(crate) millis: u64,
    /// The first so many attempts fail.
    pub(crate) fails: u32,
    #[serde(default)]
    pub(crate) scheduled: bool,
    /// The lease it is run under; written into it when it is claimed.
    #[serde(default)]
    pub(crate) fence: u64,
}

pub(crate) fn rules() -> Rules {
    let window = i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX);
    Rules {
        limits: BTreeMap::from([(SOLO.to_owned(), 1), (PAIR.to_owned(), 2)]),
        windows: BTreeMap::from([(WINDOWED.to_owned(), window)]),
    }
}

/// Short times, so that a check of seconds sees leases run out.
pub(crate) fn config() -> JobsConfig {
    let mut config = JobsConfig::default();
    config.concurrency = 16;
    config.prefetch = 256;
    config.poll_interval = Duration::from_millis(200);
    config.lease = Duration::from_millis(1500);
    config.heartbeat = Duration::from_millis(400);
    config.housekeeping = Duration::from_millis(300);
    config.drain = Duration::from_millis(500);
    config.retry.base_delay = Duration::from_millis(20);
    config.retry.max_delay = Duration::from_millis(500);
    config.limits = BTreeMap::from([(PAIR.to_owned(), Limit::concurrency(2))]);
    config
}

pub(crate) async fn open(url: &str, pool: u32, clock: SharedClock) -> Result<Database, WorkcheckError> {
    let mut config = DbConfig::at(url);
    config.max_connections = pool;
    config.acquire_timeout = Duration::from_secs(2);
    Ok(Database::connect(&config, clock).await?)
}

/// One that enqueues.
pub(crate) struct Feeder {
    rng: Rng,
    next: Arc<AtomicU64>,
    history: History,
    jobs: Jobs,
    store: SqlStore,
    db: Database,
    context: Context,
}

impl Feeder {
    pub(crate) async fn open(
        url: &str,
        seed: u64,
        number: u8,
        next: Arc<AtomicU64>,
        history: History,
    ) -> Result<Self, WorkcheckError> {
        let ahead = [0, 3600, -3600].get(usize::from(number) % 3).copied().unwrap_or_default();
        let clock: SharedClock = Arc::new(Skewed { ahead });
        let db = open(url, 4, clock.clone()).await?;
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), config(), clock);
        let context = Context::new(Source::Internal, &SystemClock);
        Ok(Self { rng: Rng::new(seed, u64::from(number) + 1), next, history, jobs, store, db, context })
    }

    /// One call, of one of many shapes.
    pub(crate) async fn enqueue(&mut self) {
        match self.rng.below(100) {
            0..5 => self.batch().await,
            5..15 => self.in_transaction().await,
            _ => {
                let (number, job) = self.job();
                let called = now();
                match self.jobs.enqueue(&self.context, job).await {
                    Ok(done) if done.duplicate => self.history.saw(Event::Duplicate { job: number }),
                    Ok(_) => self.history.saw(Event::Enqueued { job: number, called }),
                    Err(_) => self.history.saw(Event::Unknown { job: number }),
                }
            }
        }
    }

    async fn batch(&mut self) {
        let made: Vec<_> = (0..8).map(|_| self.job()).collect();
        let (numbers, jobs): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let called = now();
        let done = self.jobs.enqueue_many(&self.context, jobs).await;
        for (place, job) in numbers.into_iter().enumerate() {
            let event = match &done {
                Ok(done) if done.get(place).is_some_and(|done| done.duplicate) => Event::Duplicate { job },
                Ok(_) => Event::Enqueued { job, called },
                Err(_) => Event::Unknown { job },
            };
            self.history.saw(event);
        }
    }

    /// As an application does it: some are undone, some commit late.
    async fn in_transaction(&mut self) {
        let (number, job) = self.job();
        let (undo, pause) = (self.rng.below(2) == 0, self.rng.below(400));
        let called = now();
        let work = async {
            let mut tx = self.db.begin(&self.context).await?;
            let done = self.jobs.enqueue_in(&mut tx, &self.store, &self.context, job).await?;
            SystemClock.sleep(Duration::from_millis(pause)).await;
            if undo {
                tx.rollback().await?;
            } else {
                tx.commit().await?;
            }
            Ok::<_, WorkcheckError>(done.duplicate)
        };
        let event = match work.await {
            _ if undo => Event::Undone { job: number },
            Ok(true) => Event::Duplicate { job: number },
            Ok(false) => Event::Enqueued { job: number, called },
            Err(_) => Event::Unknown { job: number },
        };
        self.history.saw(event);
    }

    fn job(&mut self) -> (u64, NewJob) {
        let rng = &mut self.rng;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let millis = match rng.below(40) {
            0 => 2200,
            1..20 => rng.below(60),
            _ => 0,
        };
        let mut task = Task { job: number, millis, fails: 0, scheduled: false, fence: 0 };
        let mut at = None;
        let shape = rng.below(100);
        let (kind, key, unique) = match shape {
            0..30 => (SOLO, Some(rng.below(12)), None),
            30..50 => (PAIR, Some(rng.below(8)), None),
            50..58 => (ONCE, None, Some(rng.below(6))),
            58..64 => (WINDOWED, None, Some(rng.below(4))),
            64..70 => (EFFECT, None, None),
            _ => (PLAIN, None, None),
        };
        if shape >= 90 {
            let late = i64::try_from(rng.below(2_000_000)).unwrap_or_default();
            at = Timestamp::from_microsecond(now() + late).ok();
            task.scheduled = true;
        } else if rng.below(15) == 0 {
            task.fails = u32::try_from(1 + rng.below(3)).unwrap_or(1);
        }
        if key.is_some() {
            task.millis = task.millis.min(if rng.below(60) == 0 { 2200 } else { 15 });
        }
        let mut job = NewJob::new(kind, serde_json::to_value(&task).unwrap_or_default());
        job.run_at = at;
        job.max_attempts = 1000;
        job.key = key.map(|key| format!("k{key}"));
        job.unique_key = unique.map(|key| format!("u{key}"));
        job.unique_for = (kind == WINDOWED).then_some(WINDOW);
        (number, job)
    }
}
