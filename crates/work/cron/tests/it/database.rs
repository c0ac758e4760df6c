//! Ticks and their effects in one database: exactly once, whatever fails and however many schedulers run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtime_cron::store::{FireResult, ScheduleStore};
use runtime_cron::{
    Actions, CronConfig, FireInTx, Fired, Misfire, Origin, Overlap, Schedule, Scheduler, Schedules, SqlStore,
    Tick, TickState,
};
use runtime_db::{Database, Tx, on_connection, sqlx};
use runtime_kernel::{Context, Error, ErrorKind, ManualClock, SharedClock, Source, SystemClock};

use super::stores::open;

const HOUR: Duration = Duration::from_hours(1);

/// Writes a row for each tick; fails so many times first, after writing it.
struct Effect {
    failures: AtomicU32,
}

impl Effect {
    fn failing(failures: u32) -> Self {
        Self { failures: AtomicU32::new(failures) }
    }
}

#[async_trait]
impl FireInTx for Effect {
    async fn fire_in(&self, tx: &mut Tx, tick: &Tick) -> FireResult {
        let sql = "INSERT INTO effects (schedule, fire_time) VALUES ($1, $2)";
        let (name, at) = (tick.key.name.clone(), tick.fire_time.as_microsecond());
        let written: Result<u64, runtime_db::DbError> = async {
            on_connection!(tx, conn => sqlx::query(sql).bind(&name).bind(at).execute(&mut *conn).await?.rows_affected())
        }
        .await;
        written?;
        // Between the effect and the commit others have their turn.
        tokio::task::yield_now().await;
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return Err(Error::new(ErrorKind::Unavailable, "test.failed", "on purpose"));
        }
        Ok(Fired::Done)
    }
}

async fn prepare(db: &Database) {
    let context = Context::new(Source::Internal, &SystemClock);
    let mut tx = db.begin(&context).await.unwrap();
    let sql = "CREATE TABLE effects (schedule TEXT NOT NULL, fire_time BIGINT NOT NULL)";
    let made: Result<_, runtime_db::DbError> =
        async { on_connection!(tx, conn => sqlx::query(sql).execute(&mut *conn).await.map(drop)?) }.await;
    made.unwrap();
    tx.commit().await.unwrap();
}

async fn effects(db: &Database) -> Vec<(String, i64)> {
    let context = Context::new(Source::Internal, &SystemClock);
    let mut tx = db.begin(&context).await.unwrap();
    let sql = "SELECT schedule, fire_time FROM effects ORDER BY schedule, fire_time";
    let found: Result<Vec<(String, i64)>, runtime_db::DbError> =
        async { on_connection!(tx, conn => sqlx::query_as(sql).fetch_all(&mut *conn).await?) }.await;
    tx.rollback().await.unwrap();
    found.unwrap()
}

#[cfg(feature = "postgres")]
mod racing {
    use std::collections::BTreeMap;

    use runtime_cron::laws::Harness;

    use super::*;
    use crate::it::stores::postgres::Moved;

    /// Five schedulers with pools of their own and leases so short that they keep deposing each other; one is killed
    /// in each round, in the middle of whatever it does.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn five_schedulers_fire_each_time_exactly_once() {
        let world = Moved::new().await;
        prepare(&world.db).await;
        let mut config = CronConfig::default();
        config.poll_interval = Duration::from_millis(5);
        config.lease = Duration::from_millis(500);
        let mut handles = Vec::new();
        for _ in 0..5 {
            let at = runtime_db::DbConfig::at(world.database.url());
            let db = Database::connect(&at, SystemClock::shared()).await.unwrap();
            let store = SqlStore::new(db);
            handles.push(Schedules::new(store, config.clone(), SystemClock::shared()).unwrap());
        }
        let context = Context::new(Source::Internal, &SystemClock);
        for name in ["a", "b", "c"] {
            // Nothing is ever a misfire here, so that every second must be there in the end.
            let mut schedule = Schedule::new(name, "* * * * * *", "effect").overlap(Overlap::Allow);
            schedule.misfire = Misfire::All { up_to: 1000 };
            schedule.misfire_after = HOUR;
            schedule.keep = 10_000;
            schedule.attempts = 100;
            schedule.retry_delay = Duration::ZERO;
            handles[0].put(&context, schedule).await.unwrap();
        }
        let firing = |schedules: &Schedules, failures| {
            let actions = Actions::new().on_in_tx("effect", Effect::failing(failures));
            Arc::new(Scheduler::new(schedules.clone(), actions))
        };
        for round in 0..12usize {
            world.elapse(Duration::from_secs(4)).await;
            let tasks: Vec<_> = handles
                .iter()
                .map(|schedules| {
                    let firing = firing(schedules, 1);
                    tokio::spawn(async move { firing.run_due().await.map(drop) })
                })
                .collect();
            // The lease of whoever leads runs out under its feet.
            world.elapse(config.lease * 2).await;
            tasks[round % 5].abort();
            for task in tasks {
                if let Ok(ended) = task.await {
                    ended.unwrap();
                }
            }
        }
        world.elapse(Duration::from_secs(2)).await;
        let last = firing(&handles[0], 0);
        while last.run_due().await.unwrap() > 0 {}
        let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (name, at) in effects(&world.db).await {
            times.entry(name).or_default().push(at / 1_000_000);
        }
        assert_eq!(times.len(), 3);
        for (name, times) in times {
            let expected: Vec<i64> = (times[0]..=*times.last().unwrap()).collect();
            assert_eq!(times, expected, "{name}: each second once, and none left out");
            assert!(times.len() > 40, "{name}: {}", times.len());
            let history = handles[0].history(&context, &name, 10_000).await.unwrap();
            let done = history.iter().filter(|tick| tick.state == TickState::Done).count();
            assert_eq!(done, times.len());
        }
    }
}

#[cfg(feature = "sqlite")]
mod one_file {
    use super::*;

    struct World {
        clock: ManualClock,
        url: String,
        db: Database,
        _folder: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
            let url = format!("sqlite:{}", folder.path().join("cron.db").display());
            let db = open(&url, Arc::new(clock.clone())).await;
            prepare(&db).await;
            Self { clock, url, db, _folder: folder }
        }

        fn shared(&self) -> SharedClock {
            Arc::new(self.clock.clone())
        }

        fn schedules(&self) -> Schedules {
            Schedules::new(SqlStore::new(self.db.clone()), CronConfig::default(), self.shared()).unwrap()
        }

        fn context(&self) -> Context {
            Context::new(Source::Internal, &self.clock)
        }
    }

    #[tokio::test]
    async fn a_failed_tick_leaves_no_effect_and_a_repeated_one_leaves_one() {
        let world = World::new().await;
        let schedules = world.schedules();
        schedules.put(&world.context(), Schedule::new("a", "@hourly", "effect")).await.unwrap();
        let actions = Actions::new().on_in_tx("effect", Effect::failing(2));
        let firing = Scheduler::new(schedules.clone(), actions);
        world.clock.advance(HOUR);
        firing.run_due().await.unwrap();
        assert_eq!(effects(&world.db).await, []);
        let history = schedules.history(&world.context(), "a", 10).await.unwrap();
        assert_eq!((history[0].state, history[0].attempt), (TickState::Pending, 1));
        assert!(history[0].note.as_deref().unwrap().contains("on purpose"));
        for _ in 0..30 {
            world.clock.advance(Duration::from_secs(1));
            firing.run_due().await.unwrap();
        }
        assert_eq!(effects(&world.db).await.len(), 1);
        let history = schedules.history(&world.context(), "a", 10).await.unwrap();
        assert_eq!((history.len(), history[0].state, history[0].attempt), (1, TickState::Done, 3));
    }

    #[tokio::test]
    async fn a_restart_makes_up_for_what_it_missed_and_repeats_nothing() {
        let world = World::new().await;
        let nightly = || vec![Schedule::new("a", "@hourly", "effect").misfire(Misfire::All { up_to: 10 })];
        let schedules = world.schedules();
        schedules.sync(Origin::Config, nightly()).await.unwrap();
        let run = async |schedules: &Schedules| {
            let actions = Actions::new().on_in_tx("effect", Effect::failing(0));
            Scheduler::new(schedules.clone(), actions).run_due().await.unwrap()
        };
        world.clock.advance(HOUR);
        assert_eq!(run(&schedules).await, 1);
        world.db.close().await;
        // Three fire times pass with nobody there.
        world.clock.advance(HOUR * 3);
        let db = open(&world.url, world.shared()).await;
        let again = Schedules::new(SqlStore::new(db.clone()), CronConfig::default(), world.shared()).unwrap();
        again.sync(Origin::Config, nightly()).await.unwrap();
        assert_eq!(run(&again).await, 3);
        assert_eq!(run(&again).await, 0);
        let times: Vec<_> = effects(&db).await.into_iter().map(|(_, at)| at / 3_600_000_000 % 24).collect();
        assert_eq!(times, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn an_action_in_the_ticks_transaction_needs_a_database() {
        let clock = ManualClock::new();
        let store = runtime_cron::MemoryStore::new(Arc::new(clock.clone()));
        assert!(store.sql().is_none());
        let schedules = Schedules::new(store, CronConfig::default(), Arc::new(clock.clone())).unwrap();
        let context = Context::new(Source::Internal, &clock);
        schedules.put(&context, Schedule::new("a", "@hourly", "effect")).await.unwrap();
        clock.advance(HOUR);
        let actions = Actions::new().on_in_tx("effect", Effect::failing(0));
        Scheduler::new(schedules.clone(), actions).run_due().await.unwrap();
        let history = schedules.history(&context, "a", 1).await.unwrap();
        assert_eq!(history[0].state, TickState::Failed);
        assert!(history[0].note.as_deref().unwrap().contains("needs schedules in a database"));
    }

    #[cfg(feature = "jobs")]
    mod jobs {
        use runtime_cron::EnqueueJob;
        use runtime_jobs::store::{ClaimRequest, Filter, JobStore, Report, Verdict};
        use runtime_jobs::{Jobs, JobsConfig};
        use serde_json::json;

        use super::*;

        async fn finish_one(jobs: &runtime_jobs::SqlStore) {
            let request = ClaimRequest {
                worker: "w".to_owned(),
                queues: vec!["mail".to_owned()],
                kinds: vec!["digest".to_owned()],
                max: 1,
                lease: HOUR,
                limits: std::collections::BTreeMap::new(),
            };
            let claimed = jobs.claim(&request).await.unwrap().pop().expect("a job waits");
            assert_eq!(*claimed.payload, json!({ "to": "all" }).to_string());
            let verdict = Verdict::Completed(json!(null));
            jobs.report(vec![Report { id: claimed.id, fence: claimed.fence, verdict }]).await.unwrap();
        }

        #[tokio::test]
        async fn a_tick_enqueues_its_job_in_one_transaction_and_by_the_overlap_policy() {
            for (overlap, enqueued, states) in [
                (Overlap::Allow, [1, 2, 3], [TickState::Done, TickState::Done]),
                (Overlap::Skip, [1, 1, 2], [TickState::Skipped, TickState::Done]),
                (Overlap::Wait { up_to: 5 }, [1, 1, 3], [TickState::Done, TickState::Done]),
            ] {
                let world = World::new().await;
                let store = runtime_jobs::SqlStore::new(world.db.clone());
                let jobs = Jobs::new(store.clone(), JobsConfig::default(), world.shared());
                let schedules = world.schedules();
                let payload = json!({ "kind": "digest", "queue": "mail", "payload": { "to": "all" } });
                let schedule = Schedule::new("a", "@hourly", "job").payload(payload).overlap(overlap);
                schedules.put(&world.context(), schedule).await.unwrap();
                let actions = Actions::new().on_in_tx("job", EnqueueJob::in_tx(jobs.clone(), store.clone()));
                let firing = Scheduler::new(schedules.clone(), actions);
                let count = async || {
                    let filter = Filter { limit: 100, ..Filter::default() };
                    jobs.list(&world.context(), filter).await.unwrap().len()
                };
                let mut found = Vec::new();
                for round in 0..3 {
                    world.clock.advance(HOUR);
                    firing.run_due().await.unwrap();
                    if round == 2 && overlap != Overlap::Allow {
                        // The waiting ticks follow one after the other as jobs finish.
                        for _ in 0..2 {
                            finish_one(&store).await;
                            world.clock.advance(Duration::from_secs(2));
                            firing.run_due().await.unwrap();
                            if overlap == Overlap::Skip {
                                world.clock.advance(HOUR);
                                firing.run_due().await.unwrap();
                                break;
                            }
                        }
                    }
                    found.push(count().await);
                }
                assert_eq!(found, enqueued, "{overlap:?}");
                let history = schedules.history(&world.context(), "a", 10).await.unwrap();
                let second = history.iter().rev().nth(1).unwrap();
                assert_eq!([second.state, history[0].state], states, "{overlap:?} {history:?}");
            }
        }

        #[tokio::test]
        async fn a_payload_that_names_no_job_fails_at_once() {
            let world = World::new().await;
            let store = runtime_jobs::SqlStore::new(world.db.clone());
            let jobs = Jobs::new(store.clone(), JobsConfig::default(), world.shared());
            let schedules = world.schedules();
            let schedule = Schedule::new("a", "@hourly", "job").payload(json!({ "knid": "x" }));
            schedules.put(&world.context(), schedule).await.unwrap();
            world.clock.advance(HOUR);
            let actions = Actions::new().on_in_tx("job", EnqueueJob::in_tx(jobs, store));
            Scheduler::new(schedules.clone(), actions).run_due().await.unwrap();
            let history = schedules.history(&world.context(), "a", 1).await.unwrap();
            assert_eq!((history[0].state, history[0].attempt), (TickState::Failed, 1));
            assert!(history[0].note.as_deref().unwrap().contains("names no job"), "{history:?}");
        }
    }
}
