//! The table that remembers what was applied.

use runtime_db::{DbError, Dialect, Tx, sqlx};
use sqlx::AssertSqlSafe;

use crate::plan::Planned;

type Columns = (String, i64, String, String, String, i64);

/// One applied migration.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) module: String,
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) checksum: String,
    pub(crate) applied_at: String,
    pub(crate) duration_ms: i64,
}

impl Row {
    pub(crate) fn is(&self, module: &str, version: u32) -> bool {
        self.module == module && self.version == i64::from(version)
    }

    fn of((module, version, name, checksum, applied_at, duration_ms): Columns) -> Self {
        Self { module, version, name, checksum, applied_at, duration_ms }
    }
}

/// The same columns in both dialects; the time is text so that a person can read it.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS _runtime_migrations (
    module TEXT NOT NULL,
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    duration_ms BIGINT NOT NULL,
    PRIMARY KEY (module, version)
)";
const READ: &str = "SELECT module, version, name, checksum, applied_at, duration_ms
    FROM _runtime_migrations ORDER BY module, version";
const WRITE: &str =
    "INSERT INTO _runtime_migrations (module, version, name, checksum, applied_at, duration_ms)
    VALUES ($1, $2, $3, $4, $5, $6)";
const FINISH: &str = "UPDATE _runtime_migrations SET duration_ms = $3 WHERE module = $1 AND version = $2";

/// Runs the same sqlx call on whichever connection the transaction has.
macro_rules! on {
    ($tx:expr, $conn:ident => $call:expr) => {
        match $tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => match $tx.sqlite() {
                Some($conn) => $call.await.map_err(DbError::from),
                None => Err(DbError::Closed),
            },
            #[cfg(feature = "postgres")]
            Dialect::Postgres => match $tx.postgres() {
                Some($conn) => $call.await.map_err(DbError::from),
                None => Err(DbError::Closed),
            },
            #[allow(unreachable_patterns, reason = "reached when a backend's feature is off")]
            _ => Err(DbError::Unsupported("runtime-migrate is built without this database")),
        }
    };
}

pub(crate) async fn create(tx: &mut Tx) -> Result<(), DbError> {
    on!(tx, conn => async { sqlx::query(CREATE).execute(&mut *conn).await.map(drop) })
}

/// What was applied; nothing when there is no table yet.
pub(crate) async fn read(tx: &mut Tx) -> Result<Vec<Row>, DbError> {
    let exists = match tx.dialect() {
        Dialect::Sqlite => {
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_runtime_migrations'"
        }
        Dialect::Postgres => {
            "SELECT count(*) FROM (SELECT to_regclass('_runtime_migrations') AS found) AS t WHERE found IS NOT NULL"
        }
    };
    let count: i64 = on!(tx, conn => sqlx::query_scalar(exists).fetch_one(&mut *conn))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let rows: Vec<Columns> = on!(tx, conn => sqlx::query_as(READ).fetch_all(&mut *conn))?;
    Ok(rows.into_iter().map(Row::of).collect())
}

pub(crate) async fn write(tx: &mut Tx, planned: &Planned, applied_at: &str, ms: i64) -> Result<(), DbError> {
    on!(tx, conn => async { sqlx::query(WRITE)
        .bind(planned.module)
        .bind(i64::from(planned.version))
        .bind(planned.name)
        .bind(planned.checksum.as_str())
        .bind(applied_at)
        .bind(ms)
        .execute(&mut *conn).await.map(drop) })
}

pub(crate) async fn finish(tx: &mut Tx, planned: &Planned, ms: i64) -> Result<(), DbError> {
    on!(tx, conn => async { sqlx::query(FINISH)
        .bind(planned.module)
        .bind(i64::from(planned.version))
        .bind(ms)
        .execute(&mut *conn).await.map(drop) })
}

/// All statements of a migration, as they stand.
pub(crate) async fn run(tx: &mut Tx, sql: &'static str) -> Result<(), DbError> {
    on!(tx, conn => async { sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await.map(drop) })
}
