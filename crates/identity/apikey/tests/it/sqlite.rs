//! The SQL store keeps the laws on SQLite.

use runtime_apikey::{SqlKeyStore, laws, migrations};
use runtime_db::{Database, DbConfig, Dialect, sqlx};
use runtime_kernel::SystemClock;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_store_keeps_the_laws_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let mut turn = 0;
    laws::all(async || {
        turn += 1;
        let url = format!("sqlite:{}", folder.path().join(format!("{turn}.db")).display());
        let db = Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap();
        for (_, _, sql) in migrations::steps(Dialect::Sqlite) {
            sqlx::raw_sql(*sql).execute(&db.sqlite().unwrap().write).await.unwrap();
        }
        SqlKeyStore::new(db)
    })
    .await;
}
