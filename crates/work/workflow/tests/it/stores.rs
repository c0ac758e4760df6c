//! The laws, on every store.

use std::sync::Arc;

use runtime_kernel::ManualClock;
use runtime_workflow::{MemoryWorkflows, laws};

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_laws() {
    laws::all(async || MemoryWorkflows::new(Arc::new(ManualClock::new()))).await;
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn prepared(url: String, clock: runtime_kernel::SharedClock) -> runtime_db::Database {
    use runtime_db::{Database, DbConfig};
    use runtime_migrate::{MigrateOptions, Migrator};

    let db = Database::connect(&DbConfig::at(url), clock).await.unwrap();
    let set = vec![runtime_workflow::migrations::SET];
    Migrator::new(db.clone(), set, MigrateOptions::default()).unwrap().run().await.unwrap();
    db
}

#[cfg(feature = "sqlite")]
pub async fn sqlite(folder: &tempfile::TempDir, clock: ManualClock) -> runtime_db::Database {
    prepared(format!("sqlite:{}", folder.path().join("workflow.db").display()), Arc::new(clock)).await
}

#[cfg(feature = "postgres")]
pub async fn postgres() -> (runtime_db::Database, runtime_testkit::postgres::TestDatabase) {
    let database = runtime_testkit::postgres::database().await.unwrap();
    (prepared(database.url().to_owned(), runtime_kernel::SystemClock::shared()).await, database)
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_laws() {
    let mut folders = Vec::new();
    laws::all(async || {
        let folder = tempfile::tempdir().unwrap();
        let db = sqlite(&folder, ManualClock::new()).await;
        folders.push(folder);
        runtime_workflow::SqlWorkflows::new(db)
    })
    .await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_laws() {
    let mut databases = Vec::new();
    laws::all(async || {
        let (db, database) = postgres().await;
        databases.push(database);
        runtime_workflow::SqlWorkflows::new(db)
    })
    .await;
}
