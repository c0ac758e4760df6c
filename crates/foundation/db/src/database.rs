//! The database a process works with.

use std::fmt;
use std::sync::Arc;

use runtime_kernel::{Context, SharedClock};

use crate::config::DbConfig;
use crate::error::DbError;
use crate::transaction::Tx;
use crate::watch::{StatementStats, Watch};

/// Which SQL a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SQLite 3.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The pools of one database. Cheap to clone; all clones are one database.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    pools: Pools,
    pub(crate) watch: Arc<Watch>,
    retries: u32,
}

pub(crate) enum Pools {
    #[cfg(feature = "sqlite")]
    Sqlite(crate::SqlitePools),
    #[cfg(feature = "postgres")]
    Postgres(crate::PgPool),
}

impl Database {
    /// Opens the pools and proves that the database answers.
    ///
    /// # Errors
    /// [`DbError::Config`] for a URL or limit that cannot be used, [`DbError::Unsupported`] for a database this
    /// build has no feature for, [`DbError::Unreachable`] or [`DbError::Exhausted`] when it does not answer.
    pub async fn connect(config: &DbConfig, clock: SharedClock) -> Result<Self, DbError> {
        if let Some((key, problem)) = config.problem() {
            return Err(DbError::Config(format!("db.{key} {problem}")));
        }
        let watch = Arc::new(Watch::new(config, clock));
        let pools = open(config, &watch).await?;
        Ok(Self(Arc::new(Inner { pools, watch, retries: config.retries })))
    }

    /// Which SQL it speaks.
    pub fn dialect(&self) -> Dialect {
        match self.0.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The pools, when it is SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&self) -> Option<&crate::SqlitePools> {
        match &self.0.pools {
            Pools::Sqlite(pools) => Some(pools),
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => None,
        }
    }

    /// The pool, when it is Postgres.
    #[cfg(feature = "postgres")]
    pub fn postgres(&self) -> Option<&crate::PgPool> {
        match &self.0.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => None,
            Pools::Postgres(pool) => Some(pool),
        }
    }

    /// Begins a transaction that is undone unless [`Tx::commit`] is called.
    ///
    /// On SQLite it holds the one writer until then. Its statements are stopped at the configured limit or at
    /// the context's deadline, whichever comes first.
    ///
    /// # Errors
    /// [`DbError::Deadline`], [`DbError::Exhausted`], [`DbError::Busy`] and what connecting brings.
    pub async fn begin(&self, context: &Context) -> Result<Tx, DbError> {
        self.open(context, false).await
    }

    /// As [`begin`](Self::begin) but without the statement limit, for migrations and maintenance. The context's
    /// deadline still holds.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn begin_patient(&self, context: &Context) -> Result<Tx, DbError> {
        self.open(context, true).await
    }

    async fn open(&self, context: &Context, patient: bool) -> Result<Tx, DbError> {
        match self.0.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(ref pools) => Tx::sqlite_on(&pools.write, context.deadline, patient).await,
            #[cfg(feature = "postgres")]
            Pools::Postgres(ref pool) => Tx::postgres_on(pool, context.deadline, patient).await,
        }
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// As a statement on a pool.
    pub async fn ping(&self) -> Result<(), DbError> {
        match self.0.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(ref pools) => {
                sqlx::query("SELECT 1").fetch_one(&pools.read).await?;
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres(ref pool) => {
                sqlx::query("SELECT 1").fetch_one(pool).await?;
            }
        }
        Ok(())
    }

    /// How many statements ran, failed and were slow.
    pub fn stats(&self) -> StatementStats {
        self.0.watch.stats()
    }

    /// The clock its limits are measured with.
    pub fn clock(&self) -> &SharedClock {
        &self.0.watch.clock
    }

    pub(crate) fn retries(&self) -> u32 {
        self.0.retries
    }

    /// Closes the pools: waits for connections in use, refuses new ones. Idempotent.
    pub async fn close(&self) {
        match self.0.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(ref pools) => {
                pools.read.close().await;
                // Last, so that its closing folds the write-ahead log back into the file.
                pools.write.close().await;
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres(ref pool) => pool.close().await,
        }
    }
}

async fn open(config: &DbConfig, watch: &Arc<Watch>) -> Result<Pools, DbError> {
    let scheme = config.url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Pools::Sqlite(crate::sqlite::connect(config, watch).await?)),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Pools::Postgres(crate::postgres::connect(config, watch).await?)),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => Err(DbError::Unsupported("this build has no SQLite: enable the feature `sqlite`")),
        #[cfg(not(feature = "postgres"))]
        "postgres" | "postgresql" => {
            Err(DbError::Unsupported("this build has no Postgres: enable the feature `postgres`"))
        }
        _ if config.url.is_empty() => Err(DbError::Config(
            "db.url is not set: give `sqlite:path/to/file.db`, `sqlite::memory:` or `postgres://user@host/name`"
                .to_owned(),
        )),
        _ => Err(DbError::Config("db.url must begin with `sqlite:` or `postgres://`".to_owned())),
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}
