//! The same statement on whichever database a transaction is in.

/// Evaluates an expression on a transaction's connection, whichever database it is: `Ok` of it, with `?` inside for a
/// [`DbError`](crate::DbError), or [`DbError::Unsupported`](crate::DbError::Unsupported) when there is none. The expression
/// is compiled once for each database that is enabled.
///
/// ```
/// use runtime_db::{DbError, Tx, on_connection, sqlx};
///
/// async fn count(tx: &mut Tx) -> Result<i64, DbError> {
///     on_connection!(tx, conn => sqlx::query_scalar("SELECT count(*) FROM jobs").fetch_one(&mut *conn).await?)
/// }
/// ```
#[cfg(all(feature = "sqlite", feature = "postgres"))]
#[macro_export]
macro_rules! on_connection {
    ($tx:expr, $conn:ident => $run:expr) => {
        if let Some($conn) = $tx.sqlite() {
            Ok($run)
        } else if let Some($conn) = $tx.postgres() {
            Ok($run)
        } else {
            Err($crate::DbError::Unsupported("no statement for this database"))
        }
    };
}

/// As with both databases, on the only one.
#[cfg(all(feature = "sqlite", not(feature = "postgres")))]
#[macro_export]
macro_rules! on_connection {
    ($tx:expr, $conn:ident => $run:expr) => {
        if let Some($conn) = $tx.sqlite() {
            Ok($run)
        } else {
            Err($crate::DbError::Unsupported("no statement for this database"))
        }
    };
}

/// As with both databases, on the only one.
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
#[macro_export]
macro_rules! on_connection {
    ($tx:expr, $conn:ident => $run:expr) => {
        if let Some($conn) = $tx.postgres() {
            Ok($run)
        } else {
            Err($crate::DbError::Unsupported("no statement for this database"))
        }
    };
}

/// Runs a statement on a transaction's connection, whichever database it is, and counts the rows it changed. Errors leave
/// the function, as by `?`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[macro_export]
macro_rules! change {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: String = $sql.into();
        $crate::on_connection!($tx, conn => {
            let query = $crate::sqlx::query($crate::sqlx::AssertSqlSafe(sql.clone()))$(.bind($bind))*;
            query.execute(&mut *conn).await?.rows_affected()
        })?
    }};
}

/// Runs a query on a transaction's connection, whichever database it is; each row is a tuple, or whatever else sqlx makes of
/// rows: `tuples!(tx, (i64, String), "SELECT id, name FROM t WHERE id > $1", 7)`. Errors leave the function, as by `?`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[macro_export]
macro_rules! tuples {
    ($tx:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: String = $sql.into();
        let rows: Vec<$row> = $crate::on_connection!($tx, conn => {
            let query = $crate::sqlx::query_as($crate::sqlx::AssertSqlSafe(sql.clone()))$(.bind($bind))*;
            query.fetch_all(&mut *conn).await?
        })?;
        rows
    }};
}

/// Runs a query on a transaction's connection, whichever database it is, and maps every row; the error the map has comes
/// first: `rows!(DbError; tx, "SELECT 1", [], |row| row.try_get::<i64, _>(0)?)`. Errors leave the function, as by `?`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[macro_export]
macro_rules! rows {
    ($error:ty; $tx:expr, $sql:expr, [$($bind:expr),* $(,)?], |$row:ident| $map:expr) => {{
        let sql: String = $sql.into();
        $crate::on_connection!($tx, conn => {
            let query = $crate::sqlx::query($crate::sqlx::AssertSqlSafe(sql.clone()))$(.bind($bind))*;
            let rows = query.fetch_all(&mut *conn).await?;
            rows.iter().map(|$row| -> Result<_, $error> { Ok($map) }).collect::<Result<Vec<_>, $error>>()?
        })?
    }};
}
