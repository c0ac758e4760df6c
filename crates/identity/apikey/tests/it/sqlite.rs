//! The SQL store keeps the laws on SQLite.

use runtime_apikey::{SqlKeyStore, laws, migrations};
use runtime_db::{Database, DbConfig};
use runtime_kernel::SystemClock;
use runtime_migrate::{MigrateOptions, Migrator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_store_keeps_the_laws_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let mut turn = 0;
    laws::all(async || {
        turn += 1;
        let url = format!("sqlite:{}", folder.path().join(format!("{turn}.db")).display());
        let db = Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap();
        Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default())
            .unwrap()
            .run()
            .await
            .unwrap();
        SqlKeyStore::new(db)
    })
    .await;
}
