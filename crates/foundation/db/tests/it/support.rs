//! One fresh database of each kind per test.

use std::time::Duration;

use runtime_db::{Database, DbConfig, DbError, Tx, sqlx};
use runtime_kernel::{Context, Source, SystemClock};
use sqlx::AssertSqlSafe;

pub struct TestDb {
    pub db: Database,
    _folder: Option<tempfile::TempDir>,
    _server: Option<runtime_testkit::postgres::TestDatabase>,
}

pub fn context() -> Context {
    Context::new(Source::Internal, &SystemClock)
}

pub fn quick(url: &str) -> DbConfig {
    let mut config = DbConfig::at(url);
    config.statement_timeout = Duration::from_secs(10);
    config
}

pub async fn connect(config: &DbConfig) -> Database {
    Database::connect(config, SystemClock::shared()).await.unwrap()
}

pub async fn postgres(change: impl FnOnce(&mut DbConfig)) -> TestDb {
    let server = runtime_testkit::postgres::database().await.unwrap();
    let mut config = quick(server.url());
    change(&mut config);
    TestDb { db: connect(&config).await, _folder: None, _server: Some(server) }
}

pub async fn sqlite(change: impl FnOnce(&mut DbConfig)) -> TestDb {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("deep/er/test.db").display());
    let mut config = quick(&url);
    change(&mut config);
    TestDb { db: connect(&config).await, _folder: Some(folder), _server: None }
}

/// Both kinds, with the table `t (id integer primary key, name text unique)`.
pub async fn both(change: impl Fn(&mut DbConfig)) -> Vec<TestDb> {
    let all = vec![sqlite(&change).await, postgres(&change).await];
    for test in &all {
        let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)";
        test.db.transaction(&context(), async |mut tx| run(&mut tx, table).await).await.unwrap();
    }
    all
}

pub async fn run(tx: &mut Tx, sql: &str) -> Result<(), DbError> {
    let sql = AssertSqlSafe(sql.to_owned());
    match tx.dialect() {
        runtime_db::Dialect::Sqlite => {
            sqlx::query(sql).execute(&mut *tx.sqlite().unwrap()).await.map(drop)?;
        }
        runtime_db::Dialect::Postgres => {
            sqlx::query(sql).execute(&mut *tx.postgres().unwrap()).await.map(drop)?;
        }
    }
    Ok(())
}

pub async fn ids(db: &Database) -> Vec<i64> {
    let sql = "SELECT CAST(id AS BIGINT) FROM t ORDER BY id";
    match db.dialect() {
        runtime_db::Dialect::Sqlite => sqlx::query_scalar(sql).fetch_all(&db.sqlite().unwrap().read).await,
        runtime_db::Dialect::Postgres => sqlx::query_scalar(sql).fetch_all(db.postgres().unwrap()).await,
    }
    .unwrap()
}

/// A statement that runs until it is stopped.
pub fn endless(db: &Database) -> &'static str {
    match db.dialect() {
        runtime_db::Dialect::Sqlite => {
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        }
        runtime_db::Dialect::Postgres => "SELECT pg_sleep(600)",
    }
}
