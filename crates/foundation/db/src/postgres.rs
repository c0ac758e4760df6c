//! Postgres: limits the server itself enforces, and connections it notices are gone.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr, SqlStr};
use sqlx_core::transaction::TransactionManager;

use crate::backend::private::{Driver, Hidden};
use crate::config::DbConfig;
use crate::connection::Conn;
use crate::error::DbError;
use crate::pool::Pool;
use crate::watch::Watch;

/// A pool of Postgres connections.
pub type PgPool = Pool<Postgres>;
/// A Postgres connection.
pub type PgConn = Conn<Postgres>;

/// How long an abandoned connection gets to come back by itself before it is closed.
const GRACE: Duration = Duration::from_millis(100);
/// How often the server looks whether the client of a running statement is still there.
const GONE_CHECK: &str = "1s";

impl Driver for Postgres {
    type Guard = ();

    const SAVEPOINT_HEALS: bool = true;

    fn guard(_: &Hidden<'_>) -> Self::Guard {}

    async fn install(_: &mut PgConnection, (): &Self::Guard) -> sqlx::Result<()> {
        Ok(())
    }

    fn arm((): &Self::Guard, _: Option<Duration>) {}

    fn fired((): &Self::Guard) -> bool {
        false
    }

    /// Any failed statement aborts the transaction until a savepoint before it is restored.
    fn dooms(error: &sqlx::Error) -> bool {
        matches!(
            error,
            sqlx::Error::Database(_)
                | sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
        )
    }

    /// An aborted transaction refuses any statement.
    async fn can_commit(connection: &mut PgConnection) -> bool {
        connection.execute("SELECT 1").await.is_ok()
    }

    /// One round trip: the limit is part of opening the transaction, and ends with it.
    fn begin_sql(limit: Option<Duration>, usual: Option<Duration>) -> Option<SqlStr> {
        if limit == usual {
            return None;
        }
        let millis = limit.map_or(0, |limit| limit.as_millis().max(1));
        let text = format!("BEGIN; SET LOCAL statement_timeout = {millis}");
        Some(AssertSqlSafe(text).into_sql_str())
    }

    async fn recover(mut connection: PoolConnection<Self>, (): Self::Guard) {
        let undo = async {
            type Manager = <Postgres as sqlx::Database>::TransactionManager;
            while Manager::get_transaction_depth(&connection) > 0 {
                Manager::rollback(&mut connection).await?;
            }
            // A `BEGIN` whose answer nobody waited for is not among those sqlx counts, and whatever was then written on the
            // connection by itself would be undone with it. Outside a transaction there is no savepoint to be had (25P01).
            match connection.execute("SAVEPOINT abandoned").await {
                Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "25P01") => {
                    Ok(())
                }
                Ok(_) | Err(sqlx::Error::Database(_)) => connection.execute("ROLLBACK").await.map(drop),
                Err(error) => Err(error),
            }
        };
        // The server stops the statement of a closed connection within `GONE_CHECK`, its transaction with it.
        // A cancel request would need the backend's key, which sqlx keeps to itself.
        if !matches!(tokio::time::timeout(GRACE, undo).await, Ok(Ok(()))) {
            drop(connection.detach());
        }
    }
}

pub(crate) async fn connect(config: &DbConfig, watch: &Arc<Watch>) -> Result<PgPool, DbError> {
    let options = options(config)?;
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .min_connections(config.min_connections)
        .acquire_timeout(config.acquire_timeout)
        .idle_timeout(config.idle_timeout)
        .max_lifetime(config.max_lifetime);
    let options = reachable(options, config.acquire_timeout).await?;
    Ok(Pool::new(pool.connect_lazy_with(options), Arc::clone(watch)))
}

/// Proves that the server answers, and settles whether it can notice lost clients. A pool would hide the reason why
/// not: it tries until its time is up.
async fn reachable(options: PgConnectOptions, within: Duration) -> Result<PgConnectOptions, DbError> {
    let connect = async |options: &PgConnectOptions| {
        let connection = tokio::time::timeout(within, PgConnection::connect_with(options)).await;
        let silent = |_| DbError::Unreachable("no answer in time".to_owned());
        Ok::<_, DbError>(connection.map_err(silent)?.map(drop))
    };
    let checked = options.clone().options([("client_connection_check_interval", GONE_CHECK)]);
    match connect(&checked).await? {
        Ok(()) => Ok(checked),
        // 42704: a server before Postgres 14 does not know the setting; 22023 and 0A000: its platform lacks it.
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| matches!(&*code, "42704" | "22023" | "0A000")) =>
        {
            connect(&options).await??;
            tracing::warn!("the server cannot notice lost clients: abandoned statements run to their limit");
            Ok(options)
        }
        Err(error) => Err(error.into()),
    }
}

fn options(config: &DbConfig) -> Result<PgConnectOptions, DbError> {
    let bad = |_| DbError::Config("db.url is not a valid Postgres URL".to_owned());
    let options = PgConnectOptions::from_str(&config.url).map_err(bad)?;
    let limit = config.statement_timeout.as_millis().to_string();
    Ok(options.options([("statement_timeout", limit)]).disable_statement_logging())
}
