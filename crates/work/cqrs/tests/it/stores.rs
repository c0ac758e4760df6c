//! The laws of idempotency stores, on every store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_cqrs::laws::{self, Harness};
use runtime_cqrs::{IdempotencyStore, MemoryIdempotency};
use runtime_kernel::ManualClock;

struct Clocked<K> {
    clock: ManualClock,
    store: Arc<dyn IdempotencyStore>,
    _kept: K,
}

#[async_trait]
impl<K: Send + Sync> Harness for Clocked<K> {
    fn store(&self) -> Arc<dyn IdempotencyStore> {
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
        Clocked { store: Arc::new(MemoryIdempotency::new(Arc::new(clock.clone()))), clock, _kept: () }
    })
    .await;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn open(url: &str, clock: runtime_kernel::SharedClock) -> runtime_db::Database {
    use runtime_migrate::{MigrateOptions, Migrator};

    let db = runtime_db::Database::connect(&runtime_db::DbConfig::at(url), clock).await.unwrap();
    let set = vec![runtime_cqrs::migrations::SET];
    Migrator::new(db.clone(), set, MigrateOptions::default()).unwrap().run().await.unwrap();
    db
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_laws() {
    laws::all(async || {
        let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
        let url = format!("sqlite:{}", folder.path().join("cqrs.db").display());
        let db = open(&url, Arc::new(clock.clone())).await;
        Clocked { clock, store: Arc::new(runtime_cqrs::SqlIdempotency::new(db)), _kept: folder }
    })
    .await;
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use runtime_cqrs::SqlIdempotency;
    use runtime_db::Database;

    struct Postgres {
        db: Database,
        _database: runtime_testkit::postgres::TestDatabase,
    }

    #[async_trait]
    impl Harness for Postgres {
        fn store(&self) -> Arc<dyn IdempotencyStore> {
            Arc::new(SqlIdempotency::new(self.db.clone()))
        }

        /// Its clock is its own, so everything it remembers moves into the past instead.
        async fn elapse(&self, by: Duration) {
            let by = i64::try_from(by.as_micros()).unwrap();
            let sql = "UPDATE cqrs_idempotency SET until = until - $1";
            runtime_db::sqlx::query(sql).bind(by).execute(self.db.postgres().unwrap()).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_keeps_the_laws() {
        laws::all(async || {
            let database = runtime_testkit::postgres::database().await.unwrap();
            let db = open(database.url(), runtime_kernel::SystemClock::shared()).await;
            Postgres { db, _database: database }
        })
        .await;
    }
}
