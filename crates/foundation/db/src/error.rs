//! What the database refused, classified once: never a bound value, never the password.

use runtime_kernel::{Classify, Error, ErrorKind, Retry};

/// What went wrong between us and the database.
///
/// Made from [`sqlx::Error`] by `?`. The original is not kept: its details repeat the values of the row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// This build or this database cannot do it.
    #[error("{0}")]
    Unsupported(&'static str),
    /// No connection became free in time.
    #[error("no database connection became free in time")]
    Exhausted,
    /// The pool has been closed.
    #[error("the database pool is closed")]
    Closed,
    /// The database cannot be reached, or the connection broke.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The database stopped the statement because it ran too long.
    #[error("the statement ran longer than allowed and was stopped")]
    StatementTimeout,
    /// The context's deadline has passed.
    #[error("the deadline has passed")]
    Deadline,
    /// A row with this key exists already.
    #[error("a row with this key exists already{}", named(.constraint.as_deref()))]
    Unique {
        /// The constraint's or column's name.
        constraint: Option<String>,
    },
    /// A row that is referred to does not exist, or is still referred to.
    #[error("a reference between rows would break{}", named(.constraint.as_deref()))]
    ForeignKey {
        /// The constraint's name, where the database gives it.
        constraint: Option<String>,
    },
    /// A value breaks a rule of its column.
    #[error("a value breaks a rule of its column{}", named(.constraint.as_deref()))]
    Check {
        /// The constraint's or column's name.
        constraint: Option<String>,
    },
    /// Another transaction got there first; the same transaction may succeed when run again.
    #[error("another transaction got there first")]
    Serialization,
    /// Another process holds SQLite's write lock.
    #[error("another process holds the database's write lock")]
    Busy,
    /// A statement failed or was stopped, so the transaction had to be undone although its work said `Ok`.
    #[error("the transaction was undone because one of its statements had failed")]
    Aborted,
    /// A row was expected and there is none.
    #[error("no such row")]
    RowNotFound,
    /// The disk or a quota is full.
    #[error("the database is full")]
    Full,
    /// Anything else, in the database's words where they carry no data.
    #[error("database error {code}: {message}")]
    Other {
        /// The SQLSTATE or SQLite's extended result code.
        code: String,
        /// What it says.
        message: String,
    },
}

fn named(constraint: Option<&str>) -> String {
    constraint.map_or_else(String::new, |name| format!(" ({name})"))
}

impl DbError {
    /// Whether the same transaction may succeed when run again at once.
    pub fn is_lost_race(&self) -> bool {
        matches!(self, Self::Serialization | Self::Busy)
    }

    fn other(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Other { code: code.into(), message: message.into() }
    }
}

impl Classify for DbError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Exhausted | Self::Closed | Self::Unreachable(_) | Self::Busy | Self::Full => {
                ErrorKind::Unavailable
            }
            Self::StatementTimeout | Self::Deadline => ErrorKind::Timeout,
            Self::Unique { .. } | Self::ForeignKey { .. } | Self::Serialization => ErrorKind::Conflict,
            Self::Config(_) | Self::Check { .. } => ErrorKind::Invalid,
            Self::RowNotFound => ErrorKind::NotFound,
            Self::Aborted | Self::Other { .. } => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "db.config",
            Self::Unsupported(_) => "db.unsupported",
            Self::Exhausted => "db.exhausted",
            Self::Closed => "db.closed",
            Self::Unreachable(_) => "db.unreachable",
            Self::StatementTimeout => "db.statement_timeout",
            Self::Deadline => "deadline.exceeded",
            Self::Unique { .. } => "db.unique",
            Self::ForeignKey { .. } => "db.foreign_key",
            Self::Check { .. } => "db.check",
            Self::Serialization => "db.serialization",
            Self::Busy => "db.busy",
            Self::Aborted => "db.aborted",
            Self::RowNotFound => "db.row_not_found",
            Self::Full => "db.full",
            Self::Other { .. } => "db.error",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Serialization | Self::Busy => Retry::Now,
            Self::Deadline | Self::Closed => Retry::Never,
            _ => self.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(DbError);

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => of_database(error.as_ref()),
            sqlx::Error::RowNotFound => Self::RowNotFound,
            sqlx::Error::PoolTimedOut => Self::Exhausted,
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::Io(error) => Self::Unreachable(error.kind().to_string()),
            sqlx::Error::Tls(_) => Self::Unreachable("TLS could not be agreed".to_owned()),
            sqlx::Error::WorkerCrashed => Self::Unreachable("the database's thread ended".to_owned()),
            sqlx::Error::Configuration(_) => Self::Config("db.url cannot be parsed".to_owned()),
            sqlx::Error::ColumnDecode { index, .. } => Self::other("decode", format!("column {index}")),
            sqlx::Error::ColumnNotFound(name) => Self::other("column", format!("no column {name}")),
            sqlx::Error::ColumnIndexOutOfBounds { index, len } => {
                Self::other("column", format!("no column {index} among {len}"))
            }
            sqlx::Error::TypeNotFound { type_name } => Self::other("type", format!("no type {type_name}")),
            sqlx::Error::Protocol(message) if message == crate::connection::UNDONE => Self::Aborted,
            sqlx::Error::Protocol(message) => Self::other("protocol", message),
            sqlx::Error::Encode(_) => Self::other("encode", "a value cannot be encoded"),
            sqlx::Error::Decode(_) => Self::other("decode", "a value cannot be decoded"),
            _ => Self::other("client", "the database client failed"),
        }
    }
}

fn of_database(error: &dyn sqlx::error::DatabaseError) -> DbError {
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "sqlite")]
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        return of_sqlite(&code, error.message());
    }
    of_sqlstate(&code, error)
}

/// <https://www.sqlite.org/rescode.html>
#[cfg(feature = "sqlite")]
fn of_sqlite(code: &str, message: &str) -> DbError {
    let Ok(number) = code.parse::<u32>() else { return DbError::other(code, message) };
    let constraint = || message.split_once(": ").map(|(_, name)| name.to_owned());
    match (number, number & 0xff) {
        (2067 | 1555 | 2579, _) => DbError::Unique { constraint: constraint() },
        (787, _) => DbError::ForeignKey { constraint: None },
        (_, 19) => DbError::Check { constraint: constraint() },
        (_, 5 | 6) => DbError::Busy,
        (_, 9) => DbError::StatementTimeout,
        (_, 13) => DbError::Full,
        (_, 14) => DbError::Unreachable(message.to_owned()),
        _ => DbError::other(code, message),
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn of_sqlstate(code: &str, error: &dyn sqlx::error::DatabaseError) -> DbError {
    let constraint = || error.constraint().map(ToOwned::to_owned);
    match code {
        "23505" | "23P01" => DbError::Unique { constraint: constraint() },
        "23503" | "23001" => DbError::ForeignKey { constraint: constraint() },
        "40001" | "40P01" | "55P03" => DbError::Serialization,
        "57014" => DbError::StatementTimeout,
        "25P02" => DbError::Aborted,
        "53100" | "53200" => DbError::Full,
        "53300" => DbError::Unreachable("it takes no more connections".to_owned()),
        _ if code.starts_with("23") => DbError::Check { constraint: constraint() },
        _ if code.starts_with("08") || code.starts_with("57P") || code.starts_with("28") => {
            DbError::Unreachable(error.message().to_owned())
        }
        // Data exceptions and raised ones quote the value.
        _ if code.starts_with("22") => DbError::other(code, "a value does not fit"),
        _ if code.starts_with("P0") => DbError::other(code, "raised by the database's own code"),
        _ => DbError::other(code, error.message()),
    }
}

/// The kernel's answer to a passed deadline is one whatever part says it.
impl DbError {
    pub(crate) fn of_deadline(_: Error) -> Self {
        Self::Deadline
    }
}
