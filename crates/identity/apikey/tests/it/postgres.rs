//! The SQL store keeps the laws on Postgres.

use runtime_apikey::{SqlKeyStore, laws, migrations};
use runtime_db::{Database, DbConfig, Dialect, sqlx};
use runtime_kernel::SystemClock;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_store_keeps_the_laws_on_postgres() {
    let mut databases = Vec::new();
    laws::all(async || {
        let database = runtime_testkit::postgres::database().await.unwrap();
        let db = Database::connect(&DbConfig::at(database.url()), SystemClock::shared()).await.unwrap();
        databases.push(database);
        for (_, _, sql) in migrations::steps(Dialect::Postgres) {
            sqlx::raw_sql(*sql).execute(db.postgres().unwrap()).await.unwrap();
        }
        SqlKeyStore::new(db)
    })
    .await;
}
