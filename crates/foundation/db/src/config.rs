//! Where the database is and how its pools behave.

use std::fmt;
use std::time::Duration;

use runtime_kernel::units;
use serde::{Deserialize, Serialize};

/// The section `db`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DbConfig {
    /// `sqlite:path/to/file.db`, `sqlite::memory:`, or `postgres://user:password@host/database`. No default: the
    /// server decides its own file, a library user names one.
    pub url: String,
    /// The URL of a role that may change the schema, for migrations. Empty means `url` does that too.
    pub admin_url: String,
    /// Most connections at a time: all of Postgres's, or the readers of SQLite, which has one writer besides.
    /// Default 10.
    pub max_connections: u32,
    /// Connections kept open when idle (Postgres). Default 0.
    pub min_connections: u32,
    /// Longest wait for a free connection before [`DbError::Exhausted`](crate::DbError::Exhausted). Default 5 s.
    #[serde(with = "units::duration")]
    pub acquire_timeout: Duration,
    /// An idle Postgres connection is closed after this. Default 10 min.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// A Postgres connection is replaced at this age. Default 30 min.
    #[serde(with = "units::duration")]
    pub max_lifetime: Duration,
    /// A statement that runs longer is stopped by the database itself. Zero means no limit. Default 30 s.
    #[serde(with = "units::duration")]
    pub statement_timeout: Duration,
    /// A statement that takes longer is logged by its fingerprint. Zero switches the log off. Default 500 ms.
    #[serde(with = "units::duration")]
    pub slow_query: Duration,
    /// How often [`Database::transaction`](crate::Database::transaction) runs again after a lost race. Default 5.
    pub retries: u32,
    /// How long SQLite waits for another process's write lock. Default 5 s.
    #[serde(with = "units::duration")]
    pub busy_timeout: Duration,
    /// What `runtime-migrate` does to the schema at start. Default `auto`.
    pub migrate: Migrate,
    /// What SQLite does before it says a commit is done. Default `full`.
    pub synchronous: Synchronous,
}

/// What happens to pending migrations when a process starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Migrate {
    /// They are applied; of several processes one does it and the others wait.
    #[default]
    Auto,
    /// The process refuses to start while any is pending.
    Check,
    /// Nobody looks.
    Off,
}

/// What a commit on SQLite has survived when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Synchronous {
    /// Power loss: the log is flushed to the disk at every commit.
    #[default]
    Full,
    /// The death of the process, but not of the machine: the last commits before a power cut may be gone, the
    /// file stays sound. Several times more commits a second on most disks.
    Normal,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            admin_url: String::new(),
            max_connections: 10,
            min_connections: 0,
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_mins(10),
            max_lifetime: Duration::from_mins(30),
            statement_timeout: Duration::from_secs(30),
            slow_query: Duration::from_millis(500),
            retries: 5,
            busy_timeout: Duration::from_secs(5),
            migrate: Migrate::Auto,
            synchronous: Synchronous::Full,
        }
    }
}

impl DbConfig {
    /// The defaults for a database at this URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The first thing wrong, as the key and the reason.
    pub(crate) fn problem(&self) -> Option<(&'static str, &'static str)> {
        if self.max_connections == 0 {
            return Some(("max_connections", "must be at least 1"));
        }
        if self.min_connections > self.max_connections {
            return Some(("min_connections", "must not exceed max_connections"));
        }
        if self.acquire_timeout.is_zero() {
            return Some(("acquire_timeout", "must not be zero"));
        }
        None
    }
}

impl fmt::Debug for DbConfig {
    /// Everything but the URLs, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbConfig")
            .field("url", &"***")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("slow_query", &self.slow_query)
            .field("retries", &self.retries)
            .field("synchronous", &self.synchronous)
            .finish_non_exhaustive()
    }
}
