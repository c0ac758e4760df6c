//! Brings a database's schema to where the program needs it.

use std::time::Duration;

use runtime_db::{Database, DbError, Tx};
use runtime_kernel::{Context, Source};

use crate::error::MigrateError;
use crate::history;
use crate::lock::Lock;
use crate::migration::MigrationSet;
use crate::plan::{self, Applied, Planned, Status};

/// What to do in the cases people disagree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrateOptions {
    /// Whether a migration may be applied although a later one of its module has been. Default no: it is refused.
    pub out_of_order: bool,
    /// What to do when the database is ahead of the program. Default [`Unknown::Warn`].
    pub unknown: Unknown,
    /// How long to wait for another process that migrates. Default 5 min.
    pub lock_timeout: Duration,
}

/// What to do when the database has a migration of one of our modules that this program does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unknown {
    /// Say so and go on: the older program of a rolling update meets the newer one's schema.
    #[default]
    Warn,
    /// Refuse to go on.
    Refuse,
}

impl Default for MigrateOptions {
    fn default() -> Self {
        Self { out_of_order: false, unknown: Unknown::Warn, lock_timeout: Duration::from_mins(5) }
    }
}

/// Applies the migrations of several modules to one database.
#[derive(Clone, Debug)]
pub struct Migrator {
    db: Database,
    sets: Vec<MigrationSet>,
    options: MigrateOptions,
}

impl Migrator {
    /// A migrator of these sets, applied in the order given.
    ///
    /// # Errors
    /// [`MigrateError::Set`] when two sets name one module or versions do not rise.
    pub fn new(db: Database, sets: Vec<MigrationSet>, options: MigrateOptions) -> Result<Self, MigrateError> {
        plan::check(&sets)?;
        Ok(Self { db, sets, options })
    }

    /// Where every migration stands. Changes nothing.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn status(&self) -> Result<Vec<Status>, MigrateError> {
        Ok(plan::status(&self.sets, &self.rows().await?, self.db.dialect()))
    }

    /// What [`run`](Self::run) would apply, with its SQL. Changes nothing.
    ///
    /// # Errors
    /// What `run` would refuse: edited, unknown and out-of-order migrations.
    pub async fn dry_run(&self) -> Result<Vec<Planned>, MigrateError> {
        self.pending(&self.rows().await?)
    }

    /// Refuses a database on which something is pending. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError::Pending`], and as [`dry_run`](Self::dry_run).
    pub async fn check(&self) -> Result<(), MigrateError> {
        match self.dry_run().await?.len() {
            0 => Ok(()),
            pending => Err(MigrateError::Pending(pending)),
        }
    }

    /// Applies what is pending, each migration in a transaction of its own, while no other process does.
    ///
    /// Dropped half-way, the migration that runs is undone; those before it stay applied, and the lock is given back.
    ///
    /// # Errors
    /// As [`dry_run`](Self::dry_run) before anything is applied; [`MigrateError::Failed`] names the migration that
    /// failed, those before it stay applied; [`MigrateError::Locked`].
    pub async fn run(&self) -> Result<Vec<Applied>, MigrateError> {
        // Nothing to do is the usual case, and needs no lock.
        if self.pending(&self.rows().await?)?.is_empty() {
            return Ok(Vec::new());
        }
        let mut lock = Lock::acquire(&self.db, self.options.lock_timeout).await?;
        let done = self.apply_all(&mut lock).await;
        lock.release().await;
        done
    }

    async fn apply_all(&self, lock: &mut Lock) -> Result<Vec<Applied>, MigrateError> {
        let mut tx = self.begin().await?;
        history::create(&mut tx).await?;
        // Another process may have been faster, so the plan is made under the lock.
        let pending = self.pending(&history::read(&mut tx).await?)?;
        tx.commit().await?;
        let mut applied = Vec::new();
        for planned in &pending {
            let started = self.db.clock().now();
            let done = if planned.transactional {
                self.apply(planned).await
            } else {
                self.apply_outside(planned, lock).await
            };
            let ran = done.map_err(|error| MigrateError::Failed {
                module: planned.module.to_owned(),
                version: planned.version,
                name: planned.name.to_owned(),
                error,
            })?;
            if ran {
                let took = self.db.clock().now().saturating_duration_since(started);
                let (module, version, name) = (planned.module, planned.version, planned.name);
                tracing::info!(module, version, name, "migration applied");
                applied.push(Applied { module, version, name, took });
            }
        }
        Ok(applied)
    }

    /// Whether it was applied here, and not meanwhile by another process.
    async fn apply(&self, planned: &Planned) -> Result<bool, DbError> {
        let clock = self.db.clock();
        let mut tx = self.begin().await?;
        if history::read(&mut tx).await?.iter().any(|row| row.is(planned.module, planned.version)) {
            return Ok(false);
        }
        let started = clock.now();
        // First, so that of two processes without a common lock one fails on the key before it changes anything.
        history::write(&mut tx, planned, &clock.utc().to_string(), 0).await?;
        history::run(&mut tx, planned.sql).await?;
        history::finish(&mut tx, planned, millis(clock.now().saturating_duration_since(started))).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Statements Postgres refuses inside a transaction. Recorded only once they have succeeded.
    #[cfg(feature = "postgres")]
    async fn apply_outside(&self, planned: &Planned, lock: &mut Lock) -> Result<bool, DbError> {
        let clock = self.db.clock();
        let started = clock.now();
        let connection = lock.connection.as_mut().ok_or(DbError::Closed)?;
        runtime_db::sqlx::raw_sql(planned.sql).execute(connection).await?;
        let took = millis(clock.now().saturating_duration_since(started));
        let mut tx = self.begin().await?;
        history::write(&mut tx, planned, &clock.utc().to_string(), took).await?;
        tx.commit().await?;
        Ok(true)
    }

    #[cfg(not(feature = "postgres"))]
    async fn apply_outside(&self, planned: &Planned, _: &mut Lock) -> Result<bool, DbError> {
        self.apply(planned).await
    }

    fn pending(&self, rows: &[history::Row]) -> Result<Vec<Planned>, MigrateError> {
        plan::pending(&self.sets, rows, self.db.dialect(), &self.options)
    }

    async fn rows(&self) -> Result<Vec<history::Row>, MigrateError> {
        let mut tx = self.begin().await?;
        let rows = history::read(&mut tx).await?;
        tx.rollback().await?;
        Ok(rows)
    }

    async fn begin(&self) -> Result<Tx, DbError> {
        let context = Context::new(Source::Internal, &**self.db.clock());
        self.db.begin_patient(&context).await
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
