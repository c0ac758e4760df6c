//! SQLite: one writer, many readers, and a progress handler that ends what runs too long.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtime_kernel::SharedClock;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlStr};
use sqlx_core::transaction::TransactionManager;

use crate::backend::private::{Driver, Hidden};
use crate::config::{DbConfig, Synchronous};
use crate::connection::Conn;
use crate::error::DbError;
use crate::pool::Pool;
use crate::watch::Watch;

/// A pool of SQLite connections.
pub type SqlitePool = Pool<Sqlite>;
/// A SQLite connection.
pub type SqliteConn = Conn<Sqlite>;

/// SQLite allows one writer at a time; waiting for it in a fair queue beats colliding on its lock.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqlitePools {
    /// Connections that only read (`PRAGMA query_only`); a write through them is refused.
    pub read: SqlitePool,
    /// The one connection that writes.
    pub write: SqlitePool,
}

/// Operations of SQLite's virtual machine between two looks at the guard: well under a millisecond.
const OPERATIONS: i32 = 10_000;
const LOG_LIMIT: u32 = 64 << 20;

/// What `sqlite3_progress_handler` asks while a statement runs.
#[derive(Debug)]
pub struct SqliteGuard {
    clock: SharedClock,
    origin: Instant,
    /// Microseconds after `origin`; zero for no limit.
    until: AtomicU64,
    stopped: AtomicBool,
    fired: AtomicBool,
}

impl SqliteGuard {
    fn must_stop(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let late = until != 0 && self.elapsed() >= until;
        let stop = late || self.stopped.load(Ordering::Acquire);
        if stop {
            self.fired.store(true, Ordering::Release);
        }
        stop
    }

    fn elapsed(&self) -> u64 {
        micros(self.clock.now().saturating_duration_since(self.origin))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Driver for Sqlite {
    type Guard = Arc<SqliteGuard>;

    // An interrupted or failed write may have undone the whole transaction, savepoints and all.
    const SAVEPOINT_HEALS: bool = false;

    fn guard(watch: &Hidden<'_>) -> Self::Guard {
        let clock = Arc::clone(&watch.0.clock);
        Arc::new(SqliteGuard {
            origin: clock.now(),
            clock,
            until: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            fired: AtomicBool::new(false),
        })
    }

    async fn install(connection: &mut SqliteConnection, guard: &Self::Guard) -> sqlx::Result<()> {
        let mut handle = connection.lock_handle().await?;
        let guard = Arc::clone(guard);
        handle.set_progress_handler(OPERATIONS, move || !guard.must_stop());
        Ok(())
    }

    fn arm(guard: &Self::Guard, limit: Option<Duration>) {
        let until = limit.map_or(0, |limit| guard.elapsed().saturating_add(micros(limit)).max(1));
        guard.until.store(until, Ordering::Release);
    }

    fn fired(guard: &Self::Guard) -> bool {
        guard.fired.load(Ordering::Acquire)
    }

    /// The errors after which SQLite may have rolled back by itself
    /// (<https://www.sqlite.org/lang_transaction.html>): what follows would run outside any transaction.
    fn dooms(error: &sqlx::Error) -> bool {
        let sqlx::Error::Database(error) = error else { return !matches!(error, sqlx::Error::RowNotFound) };
        let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        matches!(code & 0xff, 5 | 7 | 9 | 10 | 11 | 13)
    }

    /// A transaction SQLite has ended by itself makes its `COMMIT` fail, which says enough.
    async fn can_commit(_: &mut SqliteConnection) -> bool {
        true
    }

    fn begin_sql(_: Option<Duration>, _: Option<Duration>) -> Option<SqlStr> {
        Some(SqlStr::from_static("BEGIN IMMEDIATE"))
    }

    async fn recover(mut connection: PoolConnection<Self>, guard: Self::Guard) {
        guard.stopped.store(true, Ordering::Release);
        // The handle is free once the statement has stopped.
        let drained = async {
            connection.lock_handle().await?.remove_progress_handler();
            if <Sqlite as sqlx::Database>::TransactionManager::get_transaction_depth(&connection) == 0 {
                return Ok(());
            }
            <Sqlite as sqlx::Database>::TransactionManager::rollback(&mut connection).await
        };
        if drained.await.is_err() {
            // An interrupted write has rolled back already, which leaves sqlx's count of it wrong.
            let _ = connection.detach().close_hard().await;
        }
    }
}

pub(crate) async fn connect(config: &DbConfig, watch: &Arc<Watch>) -> Result<SqlitePools, DbError> {
    let (options, memory) = options(config)?;
    // SQLite connections neither age nor break; a memory database lives as long as its last one.
    let pool = |max: u32| {
        SqlitePoolOptions::new()
            .max_connections(max)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let write = pool(1).min_connections(1).connect_with(options.clone()).await?;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&write).await?;
    if !memory && mode != "wal" {
        tracing::warn!(journal_mode = %mode, "the file system refuses SQLite's write-ahead log: readers will block the writer");
    }
    let read = pool(config.max_connections).connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(SqlitePools { read: Pool::new(read, Arc::clone(watch)), write: Pool::new(write, Arc::clone(watch)) })
}

fn options(config: &DbConfig) -> Result<(SqliteConnectOptions, bool), DbError> {
    static MEMORY: AtomicU64 = AtomicU64::new(0);
    let place = config.url.strip_prefix("sqlite:").unwrap_or(&config.url);
    let place = place.strip_prefix("//").unwrap_or(place);
    let base = SqliteConnectOptions::new()
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(config.busy_timeout)
        .disable_statement_logging();
    if place == ":memory:" {
        // A name that begins with `/` is shared by the connections of this process.
        let name = format!("/runtime-{}", MEMORY.fetch_add(1, Ordering::Relaxed));
        return Ok((base.filename(name).vfs("memdb"), true));
    }
    if place.is_empty() || place.contains('?') {
        return Err(DbError::Config(
            "db.url: expected `sqlite:path/to/file.db` without parameters".to_owned(),
        ));
    }
    if let Some(folder) = Path::new(place).parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            DbError::Unreachable(format!("the folder of db.url cannot be made: {}", error.kind()))
        })?;
    }
    let synchronous = match config.synchronous {
        Synchronous::Full => SqliteSynchronous::Full,
        Synchronous::Normal => SqliteSynchronous::Normal,
    };
    let options = base
        .filename(place)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("journal_size_limit", LOG_LIMIT.to_string());
    Ok((options, false))
}
