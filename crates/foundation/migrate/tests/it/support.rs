//! A fresh database of each kind per test.

use runtime_db::{Database, DbConfig, Dialect, sqlx};
use runtime_kernel::SystemClock;
use runtime_migrate::{MigrateError, MigrateOptions, Migration, MigrationSet, Migrator};
use sqlx::AssertSqlSafe;

pub struct TestDb {
    pub db: Database,
    pub url: String,
    _folder: Option<tempfile::TempDir>,
    _server: Option<runtime_testkit::postgres::TestDatabase>,
}

pub async fn connect(url: &str) -> Database {
    Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap()
}

pub async fn both() -> [TestDb; 2] {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let sqlite = TestDb { db: connect(&url).await, url, _folder: Some(folder), _server: None };
    let server = runtime_testkit::postgres::database().await.unwrap();
    let url = server.url().to_owned();
    [sqlite, TestDb { db: connect(&url).await, url, _folder: None, _server: Some(server) }]
}

pub const fn step(version: u32, sql: &'static str) -> Migration {
    Migration::new(version, "step", sql, sql)
}

pub fn set(module: &'static str, migrations: Vec<Migration>) -> MigrationSet {
    MigrationSet { module, migrations: migrations.leak() }
}

pub fn migrator(db: &Database, sets: Vec<MigrationSet>) -> Migrator {
    Migrator::new(db.clone(), sets, MigrateOptions::default()).unwrap()
}

pub async fn apply(db: &Database, sets: Vec<MigrationSet>) -> Result<usize, MigrateError> {
    migrator(db, sets).run().await.map(|applied| applied.len())
}

pub async fn number(db: &Database, sql: &str) -> Result<i64, sqlx::Error> {
    let sql = AssertSqlSafe(sql.to_owned());
    match db.dialect() {
        Dialect::Sqlite => sqlx::query_scalar(sql).fetch_one(&db.sqlite().unwrap().read).await,
        Dialect::Postgres => sqlx::query_scalar(sql).fetch_one(db.postgres().unwrap()).await,
    }
}

pub async fn tables(db: &Database) -> i64 {
    let sql = match db.dialect() {
        Dialect::Sqlite => "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
        Dialect::Postgres => "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'",
    };
    number(db, sql).await.unwrap()
}
