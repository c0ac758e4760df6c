//! Runs a statement on whichever connection a transaction has.

use runtime_db::DbError;

/// Runs a statement on whichever connection there is, and counts the rows it changed.
macro_rules! change {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: String = $sql.into();
        match $tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let conn = $tx.sqlite().ok_or(UNREACHABLE)?;
                sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.execute(&mut *conn).await?.rows_affected()
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let conn = $tx.postgres().ok_or(UNREACHABLE)?;
                sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.execute(&mut *conn).await?.rows_affected()
            }
            #[allow(unreachable_patterns, reason = "which databases exist depends on the features")]
            _ => return Err(UNREACHABLE.into()),
        }
    }};
}

/// Runs a query and maps every row.
macro_rules! rows {
    ($tx:expr, $sql:expr, [$($bind:expr),* $(,)?], |$row:ident| $map:expr) => {{
        let sql: String = $sql.into();
        match $tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let conn = $tx.sqlite().ok_or(UNREACHABLE)?;
                let rows = sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.fetch_all(&mut *conn).await?;
                rows.iter().map(|$row| -> Result<_, OutboxError> { Ok($map) }).collect::<Result<Vec<_>, OutboxError>>()?
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let conn = $tx.postgres().ok_or(UNREACHABLE)?;
                let rows = sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.fetch_all(&mut *conn).await?;
                rows.iter().map(|$row| -> Result<_, OutboxError> { Ok($map) }).collect::<Result<Vec<_>, OutboxError>>()?
            }
            #[allow(unreachable_patterns, reason = "which databases exist depends on the features")]
            _ => return Err(UNREACHABLE.into()),
        }
    }};
}

pub(super) use {change, rows};

pub(super) const UNREACHABLE: DbError =
    DbError::Unsupported("a database this build of runtime-outbox has no feature for");
