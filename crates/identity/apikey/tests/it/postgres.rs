//! The SQL store keeps the laws on Postgres.

use std::sync::Arc;

use runtime_apikey::{ApiKeyConfig, ApiKeys, SqlKeyStore, laws, migrations};
use runtime_db::{Database, DbConfig, sqlx};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_migrate::{MigrateOptions, Migrator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_store_keeps_the_laws_on_postgres() {
    let mut databases = Vec::new();
    laws::all(async || {
        let database = runtime_testkit::postgres::database().await.unwrap();
        let db = Database::connect(&DbConfig::at(database.url()), SystemClock::shared()).await.unwrap();
        databases.push(database);
        Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default())
            .unwrap()
            .run()
            .await
            .unwrap();
        SqlKeyStore::new(db)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_key_waits_for_one_that_is_being_written() {
    let database = runtime_testkit::postgres::database().await.unwrap();
    let db = Database::connect(&DbConfig::at(database.url()), SystemClock::shared()).await.unwrap();
    Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap().run().await.unwrap();
    let context = Context::new(Source::Internal, &SystemClock);
    let mut other = db.begin(&context).await.unwrap();
    let row =
        "INSERT INTO runtime_api_keys (id, data, hash, generation, hint) VALUES ('x', '{}', '\\x00', 0, '')";
    sqlx::query(row).execute(other.postgres().unwrap()).await.unwrap();

    let store = Arc::new(SqlKeyStore::new(db.clone()));
    let keys = ApiKeys::builder(store, SystemClock::shared(), ApiKeyConfig::default()).build().unwrap();
    let first = tokio::spawn(async move { keys.ensure_admin().await.unwrap().is_some() });
    loop {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'runtime_api_keys'::regclass";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(db.postgres().unwrap()).await.unwrap();
        if waiting > 0 || first.is_finished() {
            break;
        }
    }
    other.commit().await.unwrap();
    assert!(!first.await.unwrap(), "the other process's key came first");
}
