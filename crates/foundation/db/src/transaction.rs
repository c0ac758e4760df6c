//! A unit of work: committed when it succeeds, undone in every other case.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use runtime_kernel::{Deadline, Timestamp};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use sqlx_core::transaction::TransactionManager;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::backend::Backend;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::connection::Conn;
use crate::database::Dialect;
use crate::error::DbError;

/// An open transaction. Dropped without [`commit`](Self::commit), by an early return, a panic or a cancelled
/// future, it is undone, and a statement still running is stopped on the server.
///
/// Inside [`Database::transaction`](crate::Database::transaction) dropping it is what hands it back; the closure's result decides.
pub struct Tx {
    /// `None` only while being dropped.
    conn: Option<TxConn>,
    home: Option<Home>,
    committed: Vec<OnCommit>,
}

type OnCommit = Box<dyn FnOnce() + Send>;

/// Where a lent transaction goes when it is dropped.
#[derive(Clone, Default)]
pub(crate) struct Home(Arc<Mutex<Option<Lent>>>);

/// A transaction's connection, and whom to tell of its commit.
type Lent = (TxConn, Vec<OnCommit>);

impl Home {
    /// The transaction, once it has come back.
    pub(crate) fn take(&self) -> Option<Tx> {
        let back = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        back.map(|(conn, committed)| Tx { conn: Some(conn), home: None, committed })
    }
}

enum TxConn {
    #[cfg(feature = "sqlite")]
    Sqlite(Box<Conn<sqlx::Sqlite>>),
    #[cfg(feature = "postgres")]
    Postgres(Box<Conn<sqlx::Postgres>>),
}

/// Runs the same lines on whichever connection there is.
macro_rules! on_conn {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx.conn {
            #[cfg(feature = "sqlite")]
            Some(TxConn::Sqlite(ref mut $conn)) => $body,
            #[cfg(feature = "postgres")]
            Some(TxConn::Postgres(ref mut $conn)) => $body,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            Some(_) => Err(DbError::Closed),
            None => Err(DbError::Closed),
        }
    };
}

impl Tx {
    fn of(conn: TxConn) -> Self {
        Self { conn: Some(conn), home: None, committed: Vec::new() }
    }

    /// Makes it come back when it is dropped, instead of being undone.
    pub(crate) fn lend(&mut self) -> Home {
        self.home.insert(Home::default()).clone()
    }

    #[cfg(feature = "sqlite")]
    pub(crate) async fn sqlite_on(
        pool: &crate::SqlitePool,
        deadline: Deadline,
        patient: bool,
    ) -> Result<Self, DbError> {
        Ok(Self::of(TxConn::Sqlite(Box::new(begin(pool.conn(deadline).await?, patient).await?))))
    }

    #[cfg(feature = "postgres")]
    pub(crate) async fn postgres_on(
        pool: &crate::PgPool,
        deadline: Deadline,
        patient: bool,
    ) -> Result<Self, DbError> {
        Ok(Self::of(TxConn::Postgres(Box::new(begin(pool.conn(deadline).await?, patient).await?))))
    }

    /// Which SQL it speaks.
    pub fn dialect(&self) -> Dialect {
        match self.conn {
            #[cfg(feature = "postgres")]
            Some(TxConn::Postgres(_)) => Dialect::Postgres,
            _ => Dialect::Sqlite,
        }
    }

    /// The connection, when it is SQLite: `sqlx::query(..).execute(&mut *conn)`.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&mut self) -> Option<&mut crate::SqliteConn> {
        match &mut self.conn {
            Some(TxConn::Sqlite(conn)) => Some(conn),
            _ => None,
        }
    }

    /// The connection, when it is Postgres: `sqlx::query(..).execute(&mut *conn)`.
    #[cfg(feature = "postgres")]
    pub fn postgres(&mut self) -> Option<&mut crate::PgConn> {
        match &mut self.conn {
            Some(TxConn::Postgres(conn)) => Some(conn),
            _ => None,
        }
    }

    /// The database's time, which all who share it agree on: Postgres is asked for it as it is now, not as the transaction
    /// began; SQLite lives on this machine, so its time is that of its [`Database`](crate::Database)'s clock.
    ///
    /// # Errors
    /// As a statement; [`DbError::Other`] for a time that cannot be.
    pub async fn time(&mut self) -> Result<Timestamp, DbError> {
        #[cfg(feature = "postgres")]
        if let Some(conn) = self.postgres() {
            let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            let micros = sqlx::query_scalar(sql).fetch_one(&mut *conn).await?;
            return Timestamp::from_microsecond(micros).map_err(|_| DbError::Other {
                code: "time".to_owned(),
                message: format!("{micros} is no time"),
            });
        }
        on_conn!(self, conn => Ok(conn.state.watch.clock.utc()))
    }

    /// Makes it permanent.
    ///
    /// Not cancel-safe: dropped while the database answers, the outcome is unknown to the caller.
    ///
    /// # Errors
    /// [`DbError::Aborted`] when one of its statements had failed, even if that error was ignored: Postgres would
    /// answer such a `COMMIT` with success and keep nothing. [`DbError::Serialization`] for a lost race.
    pub async fn commit(mut self) -> Result<(), DbError> {
        on_conn!(self, conn => commit(conn).await)?;
        for told in std::mem::take(&mut self.committed) {
            told();
        }
        Ok(())
    }

    /// Calls `told` once the transaction has been committed, and never when it has not: for waking whoever waits for what
    /// it wrote. It should be quick, and must not be relied on for more than that: a process may die between the commit
    /// and the call. What a part registers is called even if that part alone was undone.
    pub fn on_commit(&mut self, told: impl FnOnce() + Send + 'static) {
        self.committed.push(Box::new(told));
    }

    /// Undoes it now, and waits until that is done.
    ///
    /// # Errors
    /// When the connection broke; the database then undoes it by itself.
    pub async fn rollback(mut self) -> Result<(), DbError> {
        on_conn!(self, conn => rollback(conn).await)
    }

    /// Lends it to a part of the work that takes a transaction by value, and has it back when that part drops it: neither
    /// what the part did nor whom it told of the commit is settled then.
    ///
    /// # Errors
    /// What `work` returns; [`DbError::Aborted`] when it said `Ok` and kept the transaction, which is undone then.
    pub async fn lend_to<T, E, W>(&mut self, work: impl FnOnce(Self) -> W) -> Result<T, E>
    where
        W: Future<Output = Result<T, E>>,
        E: From<DbError>,
    {
        let committed = std::mem::take(&mut self.committed);
        let mut lent = Self { conn: self.conn.take(), home: None, committed };
        let home = lent.lend();
        let result = work(lent).await;
        let Some(mut back) = home.take() else { return result.and(Err(DbError::Aborted.into())) };
        self.conn = back.conn.take();
        self.committed = std::mem::take(&mut back.committed);
        result
    }

    /// Begins a part that can fail alone: kept by [`Savepoint::release`], undone when dropped without it.
    ///
    /// On SQLite a statement that was stopped, or found the disk full, ends the whole transaction; on Postgres
    /// undoing the part heals any failure in it.
    ///
    /// # Errors
    /// [`DbError::Aborted`] when the transaction cannot go on, and what connections bring.
    pub async fn savepoint(&mut self) -> Result<Savepoint<'_>, DbError> {
        let unseen = on_conn!(self, conn => savepoint(conn).await)?;
        Ok(Savepoint { tx: self, unseen, open: true })
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let committed = std::mem::take(&mut self.committed);
            *home.0.lock().unwrap_or_else(PoisonError::into_inner) =
                self.conn.take().map(|conn| (conn, committed));
        }
    }
}

/// A part of a transaction, used like the transaction itself. May hold further parts.
#[derive(Debug)]
pub struct Savepoint<'t> {
    tx: &'t mut Tx,
    /// Whether sqlx's own connection had been handed out before.
    unseen: bool,
    open: bool,
}

impl Savepoint<'_> {
    /// Keeps the part, for as long as the transaction is kept.
    ///
    /// # Errors
    /// [`DbError::Aborted`] when one of its statements had failed; the part is undone then.
    pub async fn release(mut self) -> Result<(), DbError> {
        let (keep, unseen) = (true, self.unseen);
        let ended = on_conn!(self.tx, conn => end_savepoint(conn, keep, unseen).await);
        self.open = false;
        ended
    }

    /// Undoes the part now, and waits until that is done.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn rollback(mut self) -> Result<(), DbError> {
        let (keep, unseen) = (false, self.unseen);
        let ended = on_conn!(self.tx, conn => end_savepoint(conn, keep, unseen).await);
        self.open = false;
        ended
    }
}

impl Deref for Savepoint<'_> {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        self.tx
    }
}

impl DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut Tx {
        self.tx
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        if self.open {
            // Fails only without a connection, and then there is nothing to undo.
            let _: Result<(), DbError> = on_conn!(self.tx, conn => abandon_savepoint(conn));
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn begin<DB: Backend>(mut conn: Conn<DB>, patient: bool) -> Result<Conn<DB>, DbError> {
    let usual = conn.state.watch.statement_timeout;
    let (inner, state) = conn.parts()?;
    // Set first: dropped in the middle, the connection is cleaned rather than reused.
    state.in_transaction = true;
    if patient {
        state.statement_timeout = None;
    }
    DB::TransactionManager::begin(inner, DB::begin_sql(state.limit(), usual)).await?;
    Ok(conn)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn commit<DB: Backend>(conn: &mut Conn<DB>) -> Result<(), DbError> {
    let (inner, state) = conn.parts()?;
    if !state.in_transaction {
        return Ok(());
    }
    state.doomed |= DB::fired(&state.guard);
    if state.unseen && !state.doomed {
        state.doomed = !DB::can_commit(inner).await;
    }
    if state.doomed {
        rollback(conn).await?;
        return Err(DbError::Aborted);
    }
    let (inner, state) = conn.parts()?;
    DB::arm(&state.guard, None);
    DB::TransactionManager::commit(inner).await?;
    state.in_transaction = false;
    Ok(())
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn rollback<DB: Backend>(conn: &mut Conn<DB>) -> Result<(), DbError> {
    let (inner, state) = conn.parts()?;
    DB::arm(&state.guard, None);
    if state.doomed && !DB::SAVEPOINT_HEALS {
        // SQLite may have rolled back by itself, so a failing ROLLBACK is no news; dropping cleans up.
        return Ok(());
    }
    while DB::TransactionManager::get_transaction_depth(inner) > 0 {
        DB::TransactionManager::rollback(inner).await?;
    }
    state.in_transaction = false;
    Ok(())
}

/// Opens a savepoint and says whether sqlx's own connection had been handed out before it.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn savepoint<DB: Backend>(conn: &mut Conn<DB>) -> Result<bool, DbError> {
    if conn.state.doomed {
        return Err(DbError::Aborted);
    }
    let (inner, state) = conn.parts()?;
    // Dropped in the middle, sqlx undoes the whole transaction and forgets it: it must not look as if it could go on.
    state.doomed = true;
    DB::TransactionManager::begin(inner, None).await?;
    state.doomed = false;
    Ok(state.unseen)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn end_savepoint<DB: Backend>(conn: &mut Conn<DB>, keep: bool, was: bool) -> Result<(), DbError> {
    let (inner, state) = conn.parts()?;
    if !keep {
        DB::TransactionManager::rollback(inner).await?;
        if DB::SAVEPOINT_HEALS {
            state.doomed = false;
            state.unseen = was;
        }
        return Ok(());
    }
    if state.doomed {
        // Releasing an aborted savepoint fails; restoring it keeps the transaction usable.
        DB::TransactionManager::rollback(inner).await?;
        state.doomed = !DB::SAVEPOINT_HEALS;
        return Err(DbError::Aborted);
    }
    Ok(DB::TransactionManager::commit(inner).await?)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn abandon_savepoint<DB: Backend>(conn: &mut Conn<DB>) -> Result<(), DbError> {
    let (inner, state) = conn.parts()?;
    DB::TransactionManager::start_rollback(inner);
    if DB::SAVEPOINT_HEALS {
        state.doomed = false;
    }
    Ok(())
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}
