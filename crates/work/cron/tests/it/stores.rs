//! The laws, on every store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_cron::MemoryStore;
use runtime_cron::laws::{self, Harness};
use runtime_cron::store::ScheduleStore;
use runtime_kernel::ManualClock;

struct Manual {
    clock: ManualClock,
    store: Arc<dyn ScheduleStore>,
    _folder: Option<tempfile::TempDir>,
}

#[async_trait]
impl Harness for Manual {
    fn store(&self) -> Arc<dyn ScheduleStore> {
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
        Manual { store: Arc::new(MemoryStore::new(Arc::new(clock.clone()))), clock, _folder: None }
    })
    .await;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) async fn open(url: &str, clock: runtime_kernel::SharedClock) -> runtime_db::Database {
    use runtime_migrate::{MigrateOptions, Migrator};

    let db = runtime_db::Database::connect(&runtime_db::DbConfig::at(url), clock).await.unwrap();
    #[allow(unused_mut, reason = "only with jobs is there a second set")]
    let mut sets = vec![runtime_cron::migrations::SET];
    #[cfg(feature = "jobs")]
    sets.push(runtime_jobs::migrations::SET);
    Migrator::new(db.clone(), sets, MigrateOptions::default()).unwrap().run().await.unwrap();
    db
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_laws() {
    laws::all(async || {
        let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
        let url = format!("sqlite:{}", folder.path().join("cron.db").display());
        let db = open(&url, Arc::new(clock.clone())).await;
        Manual { clock, store: Arc::new(runtime_cron::SqlStore::new(db)), _folder: Some(folder) }
    })
    .await;
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use super::{Arc, Duration, Harness, ScheduleStore, async_trait, laws, open};
    use runtime_cron::SqlStore;
    use runtime_db::{Database, DbConfig, sqlx};
    use runtime_kernel::SystemClock;
    use runtime_testkit::postgres::TestDatabase;

    /// A database whose clock the test moves: its own `clock_timestamp` hides the server's.
    pub(crate) struct Moved {
        pub(crate) db: Database,
        pub(crate) store: Arc<dyn ScheduleStore>,
        pub(crate) database: TestDatabase,
    }

    impl Moved {
        pub(crate) async fn new() -> Self {
            let database = runtime_testkit::postgres::database().await.unwrap();
            let plain =
                Database::connect(&DbConfig::at(database.url()), SystemClock::shared()).await.unwrap();
            for sql in [
                "CREATE SCHEMA moved",
                "CREATE TABLE moved.clock (by INTERVAL NOT NULL)",
                "INSERT INTO moved.clock VALUES ('0')",
                "CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
                 'SELECT pg_catalog.clock_timestamp() + (SELECT by FROM moved.clock)'",
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = moved, pg_catalog, public',
                 current_database()); END $$",
            ] {
                sqlx::query(sql).execute(plain.postgres().unwrap()).await.unwrap();
            }
            plain.close().await;
            let db = open(database.url(), SystemClock::shared()).await;
            Self { store: Arc::new(SqlStore::new(db.clone())), db, database }
        }
    }

    #[async_trait]
    impl Harness for Moved {
        fn store(&self) -> Arc<dyn ScheduleStore> {
            Arc::clone(&self.store)
        }

        async fn elapse(&self, by: Duration) {
            let sql = "UPDATE moved.clock SET by = by + $1 * interval '1 microsecond'";
            let by = i64::try_from(by.as_micros()).unwrap();
            sqlx::query(sql).bind(by).execute(self.db.postgres().unwrap()).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_keeps_the_laws() {
        laws::all(async || Moved::new().await).await;
    }
}
