//! Runs statements on whichever connection a transaction has, and turns values into what columns hold.

use runtime_db::{Database, Dialect, Tx, on_connection, sqlx};
use runtime_kernel::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WorkflowError;
use crate::instance::InstanceId;

/// Runs a statement and counts the rows it changed.
macro_rules! change {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        runtime_db::on_connection!($tx, conn => {
            runtime_db::sqlx::query($sql)$(.bind($bind))*.execute(&mut *conn).await?.rows_affected()
        })?
    };
}

/// Runs a query; each row is a tuple.
macro_rules! rows {
    ($tx:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let rows: Vec<$row> = runtime_db::on_connection!($tx, conn => {
            runtime_db::sqlx::query_as($sql)$(.bind($bind))*.fetch_all(&mut *conn).await?
        })?;
        rows
    }};
}

pub(super) use {change, rows};

/// The database's time.
pub(super) async fn now(tx: &mut Tx, db: &Database) -> Result<Timestamp, WorkflowError> {
    if tx.dialect() == Dialect::Sqlite {
        return Ok(db.clock().utc());
    }
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let micros: i64 = on_connection!(tx, conn => sqlx::query_scalar(sql).fetch_one(&mut *conn).await?)?;
    time(micros)
}

pub(super) fn time(micros: i64) -> Result<Timestamp, WorkflowError> {
    Timestamp::from_microsecond(micros).map_err(|_| WorkflowError::Corrupt(format!("{micros} is no time")))
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_microsecond)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, WorkflowError> {
    serde_json::to_string(value).map_err(|error| WorkflowError::Corrupt(error.to_string()))
}

pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, WorkflowError> {
    serde_json::from_str(text).map_err(|error| WorkflowError::Corrupt(error.to_string()))
}

pub(super) fn id(text: &str) -> Result<InstanceId, WorkflowError> {
    text.parse().map_err(|_| WorkflowError::Corrupt(format!("`{text}` is no instance id")))
}
