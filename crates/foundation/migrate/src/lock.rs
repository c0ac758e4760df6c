//! One migrating process at a time.

use std::time::Duration;

use runtime_db::Database;
#[cfg(feature = "postgres")]
use runtime_db::sqlx;

use crate::error::MigrateError;

/// The advisory lock's number, the same for every program: `"runtime "` in ASCII.
#[cfg(feature = "postgres")]
const KEY: i64 = 0x7275_6e74_696d_6520;
#[cfg(feature = "postgres")]
const POLL: Duration = Duration::from_millis(100);

/// The lock, as long as it lives. SQLite needs none: its migrations begin with the database's one write lock and
/// look again once they have it.
pub(crate) struct Lock {
    /// Not from the pool any more: closing it, however that comes about, gives the lock back.
    #[cfg(feature = "postgres")]
    pub(crate) connection: Option<sqlx::PgConnection>,
}

impl Lock {
    /// Waits for the lock.
    #[cfg_attr(
        not(feature = "postgres"),
        allow(clippy::unused_async, unused_variables, reason = "SQLite's part is empty")
    )]
    pub(crate) async fn acquire(db: &Database, within: Duration) -> Result<Self, MigrateError> {
        #[cfg(feature = "postgres")]
        if let Some(pool) = db.postgres() {
            return Self::on_postgres(pool, db, within).await;
        }
        Ok(Self {
            #[cfg(feature = "postgres")]
            connection: None,
        })
    }

    /// Asks again and again rather than waiting inside a statement: a waiting statement's snapshot would block the
    /// `CREATE INDEX CONCURRENTLY` of the process it waits for, for ever.
    #[cfg(feature = "postgres")]
    async fn on_postgres(
        pool: &runtime_db::PgPool,
        db: &Database,
        within: Duration,
    ) -> Result<Self, MigrateError> {
        use runtime_db::DbError;

        let mut connection = pool.acquire().await.map_err(DbError::from)?.detach();
        // Index builds outside a transaction run here and may take long.
        sqlx::query("SET statement_timeout = 0").execute(&mut connection).await.map_err(DbError::from)?;
        let clock = db.clock();
        let started = clock.now();
        loop {
            let got: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                .bind(KEY)
                .fetch_one(&mut connection)
                .await
                .map_err(DbError::from)?;
            if got {
                return Ok(Self { connection: Some(connection) });
            }
            let waited = clock.now().saturating_duration_since(started);
            if waited >= within {
                return Err(MigrateError::Locked(waited));
            }
            clock.sleep(POLL).await;
        }
    }

    /// Gives it back and waits until that is done, so that the next process need not wait for a closing socket.
    #[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async, reason = "SQLite's part is empty"))]
    pub(crate) async fn release(self) {
        #[cfg(feature = "postgres")]
        if let Some(connection) = self.connection {
            // A connection that fails to close has lost its lock already.
            let _ = sqlx::Connection::close(connection).await;
        }
    }
}
