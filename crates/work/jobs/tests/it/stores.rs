//! The laws, on every store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_jobs::MemoryStore;
use runtime_jobs::laws::{self, Harness};
use runtime_jobs::store::JobStore;
use runtime_kernel::ManualClock;

struct InMemory {
    clock: ManualClock,
    store: Arc<dyn JobStore>,
}

#[async_trait]
impl Harness for InMemory {
    fn store(&self) -> Arc<dyn JobStore> {
        Arc::clone(&self.store)
    }

    async fn elapse(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_laws() {
    laws::all(async || {
        let clock = ManualClock::new();
        InMemory { store: Arc::new(MemoryStore::new(Arc::new(clock.clone()))), clock }
    })
    .await;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql {
    use super::*;
    use runtime_db::{Database, DbConfig};
    use runtime_jobs::{SqlStore, migrations};
    use runtime_kernel::SharedClock;
    use runtime_migrate::{MigrateOptions, Migrator};

    async fn open(url: &str, clock: SharedClock) -> Database {
        let db = Database::connect(&DbConfig::at(url), clock).await.unwrap();
        let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
        migrator.run().await.unwrap();
        db
    }

    #[cfg(feature = "sqlite")]
    struct Sqlite {
        clock: ManualClock,
        store: Arc<dyn JobStore>,
        _folder: tempfile::TempDir,
    }

    #[cfg(feature = "sqlite")]
    #[async_trait]
    impl Harness for Sqlite {
        fn store(&self) -> Arc<dyn JobStore> {
            Arc::clone(&self.store)
        }

        async fn elapse(&self, by: Duration) {
            self.clock.advance(by);
        }
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_keeps_the_laws() {
        laws::all(async || {
            let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
            let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
            let db = open(&url, Arc::new(clock.clone())).await;
            Sqlite { clock, store: Arc::new(SqlStore::new(db)), _folder: folder }
        })
        .await;
    }

    #[cfg(feature = "postgres")]
    struct Postgres {
        db: Database,
        store: SqlStore,
        _database: runtime_testkit::postgres::TestDatabase,
    }

    #[cfg(feature = "postgres")]
    #[async_trait]
    impl Harness for Postgres {
        fn store(&self) -> Arc<dyn JobStore> {
            Arc::new(self.store.clone())
        }

        /// Its clock is its own, so everything it remembers moves into the past instead.
        async fn elapse(&self, by: Duration) {
            let by = i64::try_from(by.as_micros()).unwrap();
            let pool = self.db.postgres().unwrap();
            for sql in [
                "UPDATE runtime_jobs_ready SET run_at = run_at - $1, rank = rank - $1",
                "UPDATE runtime_jobs_later SET run_at = run_at - $1, rank = rank - $1",
                "UPDATE runtime_jobs_keyed SET run_at = run_at - $1, rank = rank - $1",
                "UPDATE runtime_jobs_awaiting SET run_at = run_at - $1, rank = rank - $1",
                "UPDATE runtime_jobs_groups SET changed_at = changed_at - $1",
                "UPDATE runtime_jobs_slots SET tat = tat - $1, open_at = open_at - $1",
                "UPDATE runtime_jobs_leases SET until = until - $1",
                "UPDATE runtime_jobs_finished SET finished_at = finished_at - $1",
                "UPDATE runtime_jobs_unique SET until = until - $1",
                "UPDATE runtime_jobs_workers SET seen = seen - $1",
            ] {
                runtime_db::sqlx::query(sql).bind(by).execute(pool).await.unwrap();
            }
            self.store.forget_marks();
        }
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_keeps_the_laws() {
        laws::all(async || {
            let database = runtime_testkit::postgres::database().await.unwrap();
            let db = open(database.url(), runtime_kernel::SystemClock::shared()).await;
            Postgres { store: SqlStore::new(db.clone()), db, _database: database }
        })
        .await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_job_exists_when_and_only_when_its_transaction_commits() {
        use runtime_jobs::{Jobs, JobsConfig, NewJob};
        use runtime_kernel::{Context, Source, SystemClock};

        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let db = open(&url, SystemClock::shared()).await;
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), JobsConfig::default(), SystemClock::shared());
        let context = Context::new(Source::Internal, &SystemClock);
        for commit in [false, true] {
            let mut tx = db.begin(&context).await.unwrap();
            let job = NewJob::new("a", serde_json::json!(1));
            let done = jobs.enqueue_in(&mut tx, &store, &context, job).await.unwrap();
            if commit {
                tx.commit().await.unwrap();
            } else {
                tx.rollback().await.unwrap();
            }
            assert_eq!(jobs.get(&context, done.id).await.is_ok(), commit);
        }
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_completed_in_its_own_transaction_lets_the_next_of_its_key_begin_at_once() {
        use runtime_jobs::{Handlers, Jobs, JobsConfig, NewJob, Worker};
        use runtime_kernel::{Context, Source, SystemClock};

        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let db = open(&url, SystemClock::shared()).await;
        let store = SqlStore::new(db.clone());
        // Nobody polls within the test's time.
        let mut config = JobsConfig::default();
        config.poll_interval = Duration::from_hours(1);
        let jobs = Jobs::new(store.clone(), config, SystemClock::shared());
        let context = Context::new(Source::Internal, &SystemClock);
        let chain = (0..5).map(|n| NewJob::new("a", serde_json::json!(n)).key("one")).collect();
        jobs.enqueue_many(&context, chain).await.unwrap();
        let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let handlers = Handlers::new().handle_value("a", move |job: runtime_jobs::JobContext, payload| {
            let (db, store, done) = (db.clone(), store.clone(), done.clone());
            async move {
                let mut tx = db.begin(&job.context).await?;
                job.complete_in(&mut tx, &store, &payload).await?;
                tx.commit().await?;
                let _ = done.send(payload.clone());
                Ok(payload)
            }
        });
        let worker = Worker::new(jobs, handlers).unwrap();
        let all = async {
            for n in 0..5 {
                assert_eq!(ended.recv().await, Some(serde_json::json!(n)));
            }
        };
        tokio::time::timeout(Duration::from_mins(1), worker.run(all)).await.unwrap();
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_unique_period_begins_when_the_key_is_had_not_when_it_was_first_asked_for() {
        use runtime_db::sqlx::query_scalar;
        use runtime_jobs::{Jobs, JobsConfig, NewJob};
        use runtime_kernel::{Context, Source, SystemClock};

        let database = runtime_testkit::postgres::database().await.unwrap();
        let db = open(database.url(), SystemClock::shared()).await;
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), JobsConfig::default(), SystemClock::shared());
        let context = Context::new(Source::Internal, &SystemClock);
        let job = || NewJob::new("a", serde_json::json!(1)).unique("u").unique_for(Duration::from_mins(1));
        let mut first = db.begin(&context).await.unwrap();
        jobs.enqueue_in(&mut first, &store, &context, job()).await.unwrap();
        let second = tokio::spawn({
            let (jobs, context, job) = (jobs.clone(), context.clone(), job());
            async move { jobs.enqueue(&context, job).await }
        });
        let pool = db.postgres().unwrap();
        // It waits for the first, and has for half a second.
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '0.5 s'";
        let waiting = runtime_testkit::until("the second to wait", async || {
            query_scalar::<_, i64>(waits).fetch_one(pool).await.unwrap() == 1
        });
        waiting.await.unwrap();
        first.rollback().await.unwrap();
        assert!(!second.await.unwrap().unwrap().duplicate);
        let sql = "SELECT u.until - r.created_at FROM runtime_jobs_unique u JOIN runtime_jobs_ready r ON r.id = u.job_id";
        let period: i64 = query_scalar(sql).fetch_one(pool).await.unwrap();
        assert!(period > 59_700_000, "{period} µs of a minute");
    }

    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn a_claim_does_not_read_what_is_for_later() {
        use runtime_jobs::{Jobs, JobsConfig, NewJob};
        use runtime_kernel::{Clock as _, Context, Source, SystemClock};

        let database = runtime_testkit::postgres::database().await.unwrap();
        // One connection, so that it can be told to count what it read.
        let mut config = runtime_db::DbConfig::at(database.url());
        config.max_connections = 1;
        let db = Database::connect(&config, SystemClock::shared()).await.unwrap();
        let sets = vec![runtime_jobs::migrations::SET];
        let migrator =
            runtime_migrate::Migrator::new(db.clone(), sets, runtime_migrate::MigrateOptions::default());
        migrator.unwrap().run().await.unwrap();
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), JobsConfig::default(), SystemClock::shared());
        let context = Context::new(Source::Internal, &SystemClock);
        let tomorrow = SystemClock.utc().saturating_add(Duration::from_hours(24));
        let later = (0..5000).map(|n| NewJob::new("a", serde_json::json!(n)).run_at(tomorrow)).collect();
        jobs.enqueue_many(&context, later).await.unwrap();
        let read = async || {
            let pool = db.postgres().unwrap();
            let flush = "SELECT pg_stat_force_next_flush()";
            runtime_db::sqlx::query(flush).execute(pool).await.unwrap();
            let sql = "SELECT COALESCE(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables
                       WHERE relname = 'runtime_jobs_later'";
            runtime_db::sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.unwrap()
        };
        let request = runtime_jobs::store::ClaimRequest {
            worker: "w".to_owned(),
            queues: vec!["default".to_owned()],
            kinds: vec!["a".to_owned()],
            max: 10,
            lease: Duration::from_secs(30),
            limits: std::collections::BTreeMap::new(),
        };
        let before = read().await;
        assert_eq!(store.claim(&request).await.unwrap(), []);
        assert!(!store.probe(&request).await.unwrap().due);
        assert_eq!(store.load("default", 10).await.unwrap().depth, 0);
        let read = read().await - before;
        assert!(read <= 10, "read {read} of 5000 jobs that are for tomorrow");
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(flavor = "multi_thread")]
    async fn workers_of_other_processes_are_told_and_need_not_poll() {
        use runtime_jobs::{Handlers, Jobs, JobsConfig, NewJob, Worker};
        use runtime_kernel::{Context, Source, SystemClock};

        let database = runtime_testkit::postgres::database().await.unwrap();
        // Two handles that share nothing stand for two processes; neither polls within the test's time.
        let mut config = JobsConfig::default();
        config.poll_interval = Duration::from_hours(1);
        let mut processes = Vec::new();
        for _ in 0..2 {
            let db = open(database.url(), SystemClock::shared()).await;
            let store = SqlStore::new(db.clone());
            processes.push((Jobs::new(store.clone(), config.clone(), SystemClock::shared()), store, db));
        }
        let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let handlers = Handlers::new().handle_value("a", move |_, payload| {
            let done = done.clone();
            async move {
                let _ = done.send(payload.clone());
                Ok(payload)
            }
        });
        let worker = Worker::new(processes[0].0.clone(), handlers).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move { worker.run(async { drop(stopped.await) }).await });
        let (jobs, store, db) = &processes[1];
        let context = Context::new(Source::Internal, &SystemClock);
        // Until the worker listens, what it is told is not heard; after that, each is.
        for n in 0..50 {
            let job = NewJob::new("a", serde_json::json!(n));
            if n % 2 == 0 {
                jobs.enqueue(&context, job).await.unwrap();
            } else {
                let mut tx = db.begin(&context).await.unwrap();
                jobs.enqueue_in(&mut tx, store, &context, job).await.unwrap();
                tx.commit().await.unwrap();
            }
            let heard = tokio::time::timeout(Duration::from_secs(20), ended.recv()).await;
            assert_eq!(heard.unwrap(), Some(serde_json::json!(n)));
        }
        stop.send(()).unwrap();
        running.await.unwrap();
        // What listened keeps no connection of the pool, which could not be closed otherwise.
        tokio::time::timeout(Duration::from_secs(20), processes[0].2.close()).await.unwrap();
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_handlers_transaction_completes_its_job_when_and_only_when_it_commits() {
        use runtime_db::sqlx;
        use runtime_jobs::{Handlers, JobState, Jobs, JobsConfig, NewJob, Worker};
        use runtime_kernel::{Context, Error, Source, SystemClock};

        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let db = open(&url, SystemClock::shared()).await;
        let pool = &db.sqlite().unwrap().write;
        sqlx::query("CREATE TABLE effects (attempt INTEGER)").execute(pool).await.unwrap();
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), JobsConfig::default(), SystemClock::shared());
        let context = Context::new(Source::Internal, &SystemClock);
        let id = jobs.enqueue(&context, NewJob::new("a", serde_json::json!(null))).await.unwrap().id;
        let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let within = (db.clone(), store.clone());
        let handlers = Handlers::new().handle_value("a", move |context, _| {
            let ((db, store), done) = (within.clone(), done.clone());
            async move {
                let mut tx = db.begin(&context.context).await?;
                let conn = tx.sqlite().ok_or_else(|| Error::internal("SQLite only"))?;
                sqlx::query("INSERT INTO effects VALUES ($1)")
                    .bind(context.attempt)
                    .execute(&mut *conn)
                    .await
                    .unwrap();
                context.complete_in(&mut tx, &store, &"kept").await?;
                if context.attempt == 1 {
                    tx.rollback().await?;
                    return Err(Error::internal("undone").with_retry(runtime_kernel::Retry::Now));
                }
                tx.commit().await?;
                let _ = done.send(());
                // What a handler says after that changes nothing.
                Err(Error::internal("too late"))
            }
        });
        let worker = Worker::new(jobs.clone(), handlers).unwrap();
        worker
            .run(async move {
                let _ = ended.recv().await;
            })
            .await;
        let job = jobs.get(&context, id).await.unwrap();
        assert_eq!((job.state, job.result), (JobState::Completed, Some(serde_json::json!("kept"))));
        let effects: Vec<i64> =
            sqlx::query_scalar("SELECT attempt FROM effects").fetch_all(pool).await.unwrap();
        assert_eq!(effects, [2]);
        assert_eq!(job.attempts.len(), 2);
    }
}
