//! The laws on every store.

use runtime_rollout::{MemoryRollouts, laws};

#[tokio::test]
async fn memory_keeps_the_laws() {
    laws::all(async || MemoryRollouts::new()).await;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn prepared(url: String) -> runtime_rollout::SqlRollouts {
    use runtime_db::{Database, DbConfig};
    use runtime_kernel::SystemClock;
    use runtime_migrate::{MigrateOptions, Migrator};

    let db = Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap();
    let set = vec![runtime_rollout::migrations::SET];
    Migrator::new(db.clone(), set, MigrateOptions::default()).unwrap().run().await.unwrap();
    runtime_rollout::SqlRollouts::new(db)
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_laws() {
    let folder = tempfile::tempdir().unwrap();
    let mut turn = 0;
    laws::all(async || {
        turn += 1;
        prepared(format!("sqlite:{}", folder.path().join(format!("{turn}.db")).display())).await
    })
    .await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_laws() {
    let mut databases = Vec::new();
    laws::all(async || {
        let database = runtime_testkit::postgres::database().await.unwrap();
        let store = prepared(database.url().to_owned()).await;
        databases.push(database);
        store
    })
    .await;
}
