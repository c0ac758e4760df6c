//! Why the schema was left as it is.

use std::time::Duration;

use runtime_db::DbError;
use runtime_kernel::{Classify, ErrorKind, Retry};

/// What kept migrations from being applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The database itself failed.
    #[error("the migrations' own table: {0}")]
    Database(#[from] DbError),
    /// The sets given make no sense.
    #[error("the migrations of `{module}`: {problem}")]
    Set {
        /// Whose.
        module: String,
        /// What is wrong.
        problem: String,
    },
    /// A migration was edited after it had been applied.
    #[error("migration {module}/{version} `{name}` was edited after it had been applied at {applied_at}")]
    Changed {
        /// Whose.
        module: String,
        /// Which.
        version: u32,
        /// Its name.
        name: String,
        /// When.
        applied_at: String,
    },
    /// The database has a migration this program does not know.
    #[error("the database has migration {module}/{version} `{name}`, which this program does not know")]
    Unknown {
        /// Whose.
        module: String,
        /// Which.
        version: i64,
        /// Its name.
        name: String,
    },
    /// A migration is older than one that has been applied.
    #[error("migration {module}/{version} `{name}` comes before {module}/{after}, which has been applied")]
    OutOfOrder {
        /// Whose.
        module: String,
        /// Which.
        version: u32,
        /// Its name.
        name: String,
        /// The one that has been applied.
        after: u32,
    },
    /// There are migrations to apply and nobody may apply them here.
    #[error("{0} migrations are pending: run `runtime migrate`, or set db.migrate to `auto`")]
    Pending(usize),
    /// Another process held the lock too long.
    #[error("another process has been migrating for {}", humantime(*.0))]
    Locked(Duration),
    /// A migration's statements failed. What it had done was undone.
    #[error("migration {module}/{version} `{name}` failed: {error}")]
    Failed {
        /// Whose.
        module: String,
        /// Which.
        version: u32,
        /// Its name.
        name: String,
        /// Why.
        error: DbError,
    },
}

fn humantime(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

impl Classify for MigrateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Database(error) => error.kind(),
            Self::Locked(_) => ErrorKind::Unavailable,
            Self::Set { .. } => ErrorKind::Invalid,
            // The operator's to resolve, and the text says how: not an internal fault.
            _ => ErrorKind::PreconditionFailed,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Database(error) => error.code(),
            Self::Set { .. } => "migrate.set",
            Self::Changed { .. } => "migrate.changed",
            Self::Unknown { .. } => "migrate.unknown",
            Self::OutOfOrder { .. } => "migrate.out_of_order",
            Self::Pending(_) => "migrate.pending",
            Self::Locked(_) => "migrate.locked",
            Self::Failed { .. } => "migrate.failed",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Database(error) => error.retry(),
            _ => self.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(MigrateError);
