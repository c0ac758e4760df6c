//! Processes that work, what they were told, and what must have come of it in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runtime_db::sqlx::{self, AssertSqlSafe};
use runtime_db::{Database, Tx, on_connection};
use runtime_jobs::store::{
    ClaimRequest, Claimed, Filter, JobStore, Pulse, Receipt, Report, Retention, Verdict,
};
use runtime_jobs::{
    AttemptOutcome, BatchId, Failure, Job, JobId, JobState, Jobs, JobsError, Limit, NewJob, SqlStore,
};
use runtime_kernel::{Clock, Context, ManualClock, Source, Timestamp, Uuid};
use serde_json::{Value, json};

use super::faulty::cut;
use super::gate::{Fault, Gate};
use super::snapshot::Snapshot;
use super::ties;

pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Past every lease, delay and look of a mark.
const PAST: Duration = Duration::from_secs(61);

/// What all processes of one run know together.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    /// Which run this is, for whoever reads of its failure.
    pub(crate) at: String,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Jobs whose enqueueing was acknowledged.
    acknowledged: BTreeSet<JobId>,
    /// How often a job's work was begun.
    begun: BTreeMap<JobId, u32>,
    /// How many ends of a job were accepted.
    ended: BTreeMap<JobId, u32>,
    /// Who was to be cancelled, and whether that was acknowledged.
    cancelled: BTreeMap<JobId, bool>,
    /// Who may have been forgotten by a prune.
    forgotten: BTreeSet<JobId>,
    stale: u32,
}

impl World {
    pub(crate) fn new(clock: ManualClock, at: String) -> Arc<Self> {
        Arc::new(Self { clock, at, told: Mutex::default() })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.utc()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// How many reports were refused.
    pub(crate) fn stale(&self) -> u32 {
        self.told().stale
    }

    /// These were enqueued, and somebody was told so.
    pub(crate) fn acknowledge(&self, jobs: impl IntoIterator<Item = JobId>) {
        self.told().acknowledged.extend(jobs);
    }

    /// A prune of cancelled jobs is about to happen.
    pub(crate) fn forget_cancelled(&self) {
        let mut told = self.told();
        let cancelled: Vec<JobId> = told.cancelled.keys().copied().collect();
        told.forgotten.extend(cancelled);
    }

    /// Begins a job's work; says for the how-manieth time.
    pub(crate) fn begin(&self, id: JobId) -> u32 {
        let mut told = self.told();
        let begun = told.begun.entry(id).or_default();
        *begun += 1;
        *begun
    }
}

/// A job whose payload says what becomes of it.
pub(crate) fn job(what: &str) -> NewJob {
    NewJob::new("a", json!({ "do": what }))
}

/// Two may run at once.
pub(crate) fn keyed(key: &str) -> NewJob {
    NewJob::new("b", json!({ "do": "complete" })).key(key)
}

fn most(key: &str) -> i64 {
    if key.ends_with("two") { 2 } else { 1 }
}

/// A process: a handle of its own on the store.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) jobs: Jobs,
    /// Its own points, where it has any.
    pub(crate) gate: Arc<Gate>,
    /// What excuses its failures, once it has struck.
    pub(crate) excuse: Arc<Gate>,
    pub(crate) sql: Option<(Database, SqlStore)>,
    pub(crate) world: Arc<World>,
}

impl Process {
    pub(crate) fn store(&self) -> &Arc<dyn JobStore> {
        self.jobs.store()
    }

    pub(crate) fn context(&self) -> Context {
        Context::new(Source::Internal, &self.world.clock)
    }

    /// What failed may have failed because of the fault, and for no other reason.
    pub(crate) fn forgive<T>(&self, what: &str, result: Result<T, impl Debug>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                assert!(self.excuse.has_struck(), "{}: {}: {what}: {error:?}", self.world.at, self.name);
                None
            }
        }
    }

    pub(crate) async fn enqueue(&self, jobs: Vec<NewJob>) -> Vec<JobId> {
        let done = self.jobs.enqueue_many(&self.context(), jobs).await;
        let done = self.forgive("enqueue", done).unwrap_or_default();
        let fresh: Vec<JobId> = done.iter().filter(|done| !done.duplicate).map(|done| done.id).collect();
        self.world.told().acknowledged.extend(&fresh);
        fresh
    }

    /// Enqueues together with a row of the user's.
    pub(crate) async fn order(&self) {
        let Some((db, store)) = &self.sql else {
            self.enqueue(vec![job("ordered")]).await;
            return;
        };
        let order = async {
            self.gate.point().await.map_err(cut)?;
            let context = self.context();
            let mut tx = db.begin(&context).await?;
            let id = self.jobs.enqueue_in(&mut tx, store, &context, job("ordered")).await?.id;
            write(&mut tx, "INSERT INTO orders (job) VALUES ($1)", id.as_uuid()).await?;
            self.within().await?;
            tx.commit().await?;
            self.gate.point().await.map_err(cut)?;
            Ok::<_, JobsError>(id)
        };
        if let Some(id) = self.forgive("order", order.await) {
            self.world.told().acknowledged.insert(id);
        }
    }

    /// A point inside a transaction. Nobody stands still there, where there is one writer.
    async fn within(&self) -> Result<(), JobsError> {
        if self.gate.fault() == Fault::Delay {
            return Ok(());
        }
        self.gate.point().await.map_err(cut)
    }

    pub(crate) async fn claim(&self, max: u32) -> Vec<Claimed> {
        let request = ClaimRequest {
            worker: self.name.clone(),
            queues: vec!["default".to_owned(), "side".to_owned()],
            kinds: vec!["a".to_owned(), "b".to_owned()],
            max,
            lease: LEASE,
            limits: BTreeMap::from([("b".to_owned(), Limit::concurrency(2))]),
        };
        self.forgive("claim", self.store().claim(&request).await).unwrap_or_default()
    }

    pub(crate) async fn beat(&self, claimed: &[Claimed]) -> Pulse {
        let held: BTreeSet<u64> = claimed.iter().map(|job| job.fence).collect();
        let held: Vec<u64> = held.into_iter().collect();
        let kinds = ["a".to_owned(), "b".to_owned()];
        let pulse = self.store().heartbeat(&self.name, &kinds, &held, LEASE).await;
        self.forgive("heartbeat", pulse).unwrap_or_default()
    }

    /// Does what the payloads say, and reports: the first alone, the rest together.
    pub(crate) async fn settle(&self, claimed: Vec<Claimed>, pulse: &Pulse) {
        let mut reports = Vec::new();
        for claimed in claimed {
            if let Some(verdict) = self.run(&claimed, pulse).await {
                reports.push(Report { id: claimed.id, fence: claimed.fence, verdict });
            }
        }
        let rest = reports.split_off(reports.len().min(1));
        for reports in [reports, rest] {
            self.report(reports).await;
        }
    }

    async fn run(&self, claimed: &Claimed, pulse: &Pulse) -> Option<Verdict> {
        let payload: Value = serde_json::from_str(&claimed.payload).unwrap();
        let again = self.world.begin(claimed.id) > 1;
        let failure = Failure::new("unavailable", "test.failed", "on purpose");
        let done = Verdict::Completed(json!("done"));
        Some(match payload["do"].as_str().unwrap() {
            "retry" if !again => Verdict::Retry(Duration::from_secs(10), failure),
            "dead" if claimed.attempt == 1 => Verdict::Dead(failure),
            "snooze" if !again => Verdict::Released(Duration::from_secs(20)),
            "release" if !again => Verdict::Released(Duration::ZERO),
            "cancel" if pulse.cancel.contains(&claimed.id) => Verdict::Cancelled,
            "cancel" if !again => Verdict::Retry(Duration::ZERO, failure),
            "grow" if !again => {
                ties::grow(self, claimed).await;
                done
            }
            "progress" => {
                let kept = self.keep(claimed).await;
                if kept.is_none() {
                    return Some(Verdict::Retry(Duration::ZERO, failure));
                }
                done
            }
            "tx" if self.sql.is_some() => {
                // A handler that failed asks to be run again; what it had committed is not.
                self.complete_in(claimed).await.err()?;
                Verdict::Retry(Duration::ZERO, failure)
            }
            _ => done,
        })
    }

    async fn keep(&self, claimed: &Claimed) -> Option<()> {
        let (half, place) = (json!({ "percent": 50 }), json!({ "row": 7 }));
        let store = self.store();
        let kept = store.keep_progress(claimed.id, claimed.fence, Some(&half), None).await;
        self.forgive("progress", kept)?;
        let kept = store.keep_progress(claimed.id, claimed.fence, None, Some(&place)).await;
        self.forgive("checkpoint", kept)?;
        let kept = self.forgive("read progress", store.progress(claimed.id).await)?;
        assert_eq!((kept.progress, kept.checkpoint), (Some(half), Some(place)), "{}", self.world.at);
        Some(())
    }

    async fn complete_in(&self, claimed: &Claimed) -> Result<(), ()> {
        let Some((db, store)) = &self.sql else { return Err(()) };
        let done = async {
            self.gate.point().await.map_err(cut)?;
            let mut tx = db.begin(&self.context()).await?;
            write(&mut tx, "INSERT INTO effects (job) VALUES ($1)", claimed.id.as_uuid()).await?;
            store.complete_in(&mut tx, claimed.id, claimed.fence, json!("kept")).await?;
            self.within().await?;
            tx.commit().await?;
            *self.world.told().ended.entry(claimed.id).or_default() += 1;
            self.gate.point().await.map_err(cut)?;
            Ok::<_, JobsError>(())
        };
        self.forgive("complete in a transaction", done.await).ok_or(())
    }

    /// Reports until it is taken, as a worker does.
    pub(crate) async fn report(&self, reports: Vec<Report>) {
        if reports.is_empty() {
            return;
        }
        for _ in 0..5 {
            let receipts = self.store().report(reports.clone()).await;
            let Some(receipts) = self.forgive("report", receipts) else { continue };
            let mut told = self.world.told();
            for (report, receipt) in reports.iter().zip(receipts) {
                if receipt == Receipt::Stale {
                    assert!(self.excuse.has_struck(), "{}: refused: {report:?}", self.world.at);
                    told.stale += 1;
                } else if !matches!(report.verdict, Verdict::Retry(..) | Verdict::Released(_)) {
                    *told.ended.entry(report.id).or_default() += 1;
                }
            }
            return;
        }
        panic!("{}: reports are not taken", self.world.at);
    }

    pub(crate) async fn turn(&self) -> usize {
        let claimed = self.claim(50).await;
        let count = claimed.len();
        if count == 0 {
            return 0;
        }
        let pulse = self.beat(&claimed).await;
        self.settle(claimed, &pulse).await;
        count
    }

    pub(crate) async fn cancel(&self, id: JobId) {
        self.world.told().cancelled.insert(id, false);
        let cancelled = self.forgive("cancel", self.jobs.cancel(&self.context(), id).await);
        // Whom another process runs by now is only asked to stop, and may complete before it hears of it.
        let alone = self.excuse.fault() != Fault::Delay;
        if cancelled.is_some_and(|state| alone || state == JobState::Cancelled) {
            self.world.told().cancelled.insert(id, true);
        }
    }

    /// Cancels a batch with these members.
    pub(crate) async fn stop_batch(&self, id: BatchId, members: &[JobId]) {
        self.world.told().cancelled.extend(members.iter().map(|member| (*member, false)));
        // Who runs is asked, and may end otherwise before it hears of it.
        self.forgive("cancel a batch", self.jobs.cancel_batch(&self.context(), id).await);
    }

    /// Works after whoever had the leases has not been heard from for long.
    pub(crate) async fn take_over(&self) {
        self.world.clock.advance(PAST);
        self.forgive("rescue", self.store().rescue(100).await);
        for _ in 0..3 {
            if self.turn().await == 0 {
                return;
            }
        }
    }

    async fn all(&self) -> Vec<Job> {
        self.store().list(&Filter { limit: 10_000, ..Filter::default() }).await.unwrap()
    }

    /// Goes on until nothing is left to do.
    pub(crate) async fn finish(&self) {
        self.jobs.resume("side", None).await.unwrap();
        for _ in 0..30 {
            self.take_over().await;
            if self.all().await.iter().all(|job| job.state.is_finished()) {
                return;
            }
        }
        panic!("{}: never done: {:?}", self.world.at, self.all().await);
    }

    /// What must hold at any moment.
    pub(crate) async fn look(&self) {
        if let Some((db, _)) = &self.sql {
            Snapshot::of(db).await.unwrap().check(&self.world.at, most);
        }
    }

    /// What must have come of it, once everything is done.
    pub(crate) async fn verify(&self) {
        self.look().await;
        let at = &self.world.at;
        let jobs = self.all().await;
        let there: BTreeSet<JobId> = jobs.iter().map(|job| job.id).collect();
        let (effects, orders) = (self.rows("effects").await, self.rows("orders").await);
        for job in &jobs {
            let job = self.store().get(job.id, None).await.unwrap().unwrap();
            self.verify_one(&job);
            let what = job.payload["do"].as_str().unwrap();
            let kept = effects.iter().filter(|id| **id == job.id.as_uuid()).count();
            let expected =
                usize::from(what == "tx" && job.state == JobState::Completed && self.sql.is_some());
            assert_eq!(kept, expected, "{at}: effects of {job:?}");
            if what == "ordered" && self.sql.is_some() {
                assert!(orders.contains(&job.id.as_uuid()), "{at}: a job without its order");
            }
        }
        for order in orders {
            assert!(there.contains(&JobId::from(order)), "{at}: an order without its job");
        }
        ties::verify(self, &jobs).await;
        let told = self.world.told();
        let gone = told.acknowledged.difference(&there);
        let lost: Vec<_> = gone.filter(|id| !told.forgotten.contains(*id)).collect();
        assert!(lost.is_empty(), "{at}: acknowledged and lost: {lost:?}");
    }

    fn verify_one(&self, job: &Job) {
        let (at, told) = (&self.world.at, self.world.told());
        let expected = match job.payload["do"].as_str().unwrap() {
            "lost" => vec![JobState::Dead],
            "dead" => vec![JobState::Dead, JobState::Completed],
            // Told by what they waited for.
            _ if !job.payload["trigger"].is_null() => vec![JobState::Completed, JobState::Cancelled],
            _ => match told.cancelled.get(&job.id) {
                Some(true) => vec![JobState::Cancelled],
                Some(false) => vec![JobState::Cancelled, JobState::Completed],
                None => vec![JobState::Completed],
            },
        };
        assert!(expected.contains(&job.state), "{at}: {job:?}");
        let ended = told.ended.get(&job.id).copied().unwrap_or_default();
        let lives = 1 + u32::from(job.attempts.iter().any(|a| a.outcome == Some(AttemptOutcome::Failed)));
        assert!(ended <= lives, "{at}: ended {ended} times: {job:?}");
        let numbers: Vec<u64> = job.attempts.iter().map(|attempt| attempt.number).collect();
        let whole: Vec<u64> = (1..=job.attempts.len() as u64).collect();
        assert_eq!(numbers, whole, "{at}: every claim has one record: {job:?}");
        let completions =
            job.attempts.iter().filter(|attempt| attempt.outcome == Some(AttemptOutcome::Completed)).count();
        assert_eq!(completions, usize::from(job.state == JobState::Completed), "{at}: {job:?}");
        assert!(job.attempts.iter().all(|attempt| attempt.outcome.is_some()), "{at}: {job:?}");
        let begun = told.begun.get(&job.id).copied().unwrap_or_default();
        assert!(begun as usize <= job.attempts.len(), "{at}: begun {begun} times: {job:?}");
        assert!(begun > 0 || job.state != JobState::Completed, "{at}: completed and never begun: {job:?}");
    }

    async fn rows(&self, table: &str) -> Vec<Uuid> {
        let Some((db, _)) = &self.sql else { return Vec::new() };
        let read = async {
            let mut tx = db.begin(&self.context()).await?;
            let sql = format!("SELECT job FROM {table}");
            let rows: Vec<Uuid> = on_connection!(&mut tx, conn => {
                sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_all(&mut *conn).await?
            })?;
            tx.rollback().await?;
            Ok::<_, JobsError>(rows)
        };
        read.await.unwrap()
    }

    /// Nothing stays behind: once all is old enough, every table is empty.
    pub(crate) async fn verify_nothing_left(&self) {
        self.world.clock.advance(Duration::from_hours(48));
        let now = Some(Duration::ZERO);
        let retention = Retention { completed: now, dead: now, cancelled: now };
        while self.store().prune(&retention, 1000).await.unwrap() > 0 {}
        assert_eq!(self.all().await, [], "{}", self.world.at);
        assert_eq!(self.store().paused().await.unwrap(), [], "{}", self.world.at);
        if let Some((db, _)) = &self.sql {
            let left = Snapshot::of(db).await.unwrap();
            assert!(left.left().is_empty(), "{}: left behind: {left:?}", self.world.at);
            for sql in ["DELETE FROM effects", "DELETE FROM orders"] {
                let mut tx = db.begin(&self.context()).await.unwrap();
                let gone: Result<u64, JobsError> = async {
                    Ok(on_connection!(&mut tx, conn => sqlx::query(sql).execute(&mut *conn).await?.rows_affected())?)
                }
                .await;
                gone.unwrap();
                tx.commit().await.unwrap();
            }
        }
    }
}

pub(crate) async fn write(tx: &mut Tx, sql: &'static str, job: Uuid) -> Result<(), JobsError> {
    on_connection!(tx, conn => sqlx::query(sql).bind(job).execute(&mut *conn).await?.rows_affected())?;
    Ok(())
}
