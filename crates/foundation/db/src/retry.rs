//! Work in a transaction, run again when it lost a race.

use std::time::Duration;

use runtime_kernel::{Context, Error, Retry, uuid_v7};

use crate::database::Database;
use crate::error::DbError;
use crate::transaction::Tx;

/// An error that can say whether its transaction should be run again. Implement it for your own error to use it in
/// [`Database::transaction`].
pub trait LostRace {
    /// Whether running the same transaction again at once may succeed.
    fn is_lost_race(&self) -> bool;
}

impl LostRace for DbError {
    fn is_lost_race(&self) -> bool {
        self.is_lost_race()
    }
}

impl LostRace for Error {
    fn is_lost_race(&self) -> bool {
        self.retry() == Retry::Now
    }
}

impl Database {
    /// Runs `work` in a transaction: committed on `Ok`; undone on `Err`, panic, deadline and cancellation.
    ///
    /// After a lost race (serialisation failure, deadlock, SQLite's lock held by another process) it runs again,
    /// up to `db.retries` times with a short random pause, within the context's deadline. So `work` must do
    /// nothing outside the transaction that may not happen twice. `work` gets the transaction by value, which
    /// keeps the whole future `Send`; what it must not do is keep it: that ends in [`DbError::Aborted`].
    ///
    /// ```
    /// # use runtime_db::{Database, DbConfig, DbError, sqlx};
    /// # use runtime_kernel::{Context, Source, SystemClock};
    /// # #[cfg(feature = "sqlite")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), DbError> {
    /// # let db = Database::connect(&DbConfig::at("sqlite::memory:"), SystemClock::shared()).await?;
    /// # let context = Context::new(Source::Cli, &SystemClock);
    /// let answer: i64 = db
    ///     .transaction(&context, async |mut tx| {
    ///         let conn = tx.sqlite().ok_or(DbError::Unsupported("SQLite only"))?;
    ///         Ok::<_, DbError>(sqlx::query_scalar("SELECT 42").fetch_one(&mut *conn).await?)
    ///     })
    ///     .await?;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// What `work` returns; [`DbError::Deadline`] when time is up; [`DbError::Aborted`] when `work` said `Ok`
    /// after a statement had failed.
    pub async fn transaction<T, E, F, W>(&self, context: &Context, mut work: F) -> Result<T, E>
    where
        F: FnMut(Tx) -> W,
        W: Future<Output = Result<T, E>>,
        E: From<DbError> + LostRace,
    {
        let clock = self.clock();
        let mut round = 0;
        loop {
            let error = match self.attempt(context, &mut work).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.is_lost_race() || round >= self.retries() || context.deadline.is_expired(&**clock) {
                return Err(error);
            }
            round += 1;
            tracing::debug!(round, "the transaction lost a race and runs again");
            clock.sleep(pause(round, uuid_v7(&**clock).as_u128())).await;
        }
    }

    async fn attempt<T, E, F, W>(&self, context: &Context, work: &mut F) -> Result<T, E>
    where
        F: FnMut(Tx) -> W,
        W: Future<Output = Result<T, E>>,
        E: From<DbError>,
    {
        let mut tx = self.begin(context).await?;
        let home = tx.lend();
        let done = context.deadline.run(&**self.clock(), work(tx)).await;
        let tx = home.take();
        let result = done.map_err(DbError::of_deadline)?;
        // Whoever keeps the transaction beyond the work's end keeps it from being committed.
        let tx = tx.ok_or(DbError::Aborted)?;
        match result {
            Ok(value) => {
                tx.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // The error of the work is the one worth telling; a failed rollback means a lost connection.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }
}

/// Full jitter under a doubling cap, 10 ms at first and 1 s at most.
fn pause(round: u32, random: u128) -> Duration {
    let cap = 10_000u64.saturating_mul(1 << round.min(7)).min(1_000_000);
    let random = u64::try_from(random & u128::from(u64::MAX >> 2)).unwrap_or_default();
    Duration::from_micros(random % cap)
}
