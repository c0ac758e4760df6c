//! What can go wrong with events.

use runtime_kernel::{Classify, ErrorKind, Retry};

/// What can go wrong when events are made, read, published or consumed. Never repeats a payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// An attribute of a CloudEvent that the specification forbids.
    #[error("attribute `{attribute}` {problem}")]
    Attribute {
        /// Which.
        attribute: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A message that is no CloudEvent.
    #[error("not a CloudEvent: {0}")]
    Malformed(String),
    /// A format, mode or version of CloudEvents that is not spoken here.
    #[error("{0}")]
    Unsupported(String),
    /// Something is over its limit.
    #[error("{what} of {size} is over the limit of {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much there is.
        size: usize,
        /// How much is allowed.
        limit: usize,
    },
    /// A topic, subscription or option that cannot be used.
    #[error("{key} {problem}")]
    Config {
        /// Which.
        key: String,
        /// Why.
        problem: String,
    },
    /// A subscriber that must not lose anything has no room.
    #[error("subscriber `{0}` has no room")]
    Full(String),
    /// The topic or its last subscriber has gone.
    #[error("the topic is closed")]
    Closed,
    /// No such subscription.
    #[error("there is no subscription `{0}`")]
    NoSubscription(String),
    /// What was asked for has been forgotten by retention.
    #[error("events up to {0} are no longer kept")]
    Gone(u64),
    /// The receiver of a published event refused it.
    #[error("the receiver answered {status}")]
    Refused {
        /// Its HTTP status.
        status: u16,
    },
    /// The broker or the network failed; for operators only.
    #[error("the broker cannot be reached or failed")]
    Broker(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An HTTP call failed.
    #[cfg(feature = "client")]
    #[error(transparent)]
    Client(#[from] runtime_client::ClientError),
    /// The database failed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Db(#[from] runtime_db::DbError),
    /// Something stored does not read back.
    #[error("a stored event does not read back: {0}")]
    Corrupt(String),
}

impl EventsError {
    pub(crate) fn attribute(attribute: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Attribute { attribute: attribute.into(), problem: problem.into() }
    }

    pub(crate) fn config(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { key: key.into(), problem: problem.into() }
    }
}

impl Classify for EventsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Attribute { .. } | Self::Malformed(_) | Self::Config { .. } => ErrorKind::Invalid,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Full(_) | Self::Closed | Self::Broker(_) => ErrorKind::Unavailable,
            Self::NoSubscription(_) | Self::Gone(_) => ErrorKind::NotFound,
            Self::Refused { status } => refused(*status),
            #[cfg(feature = "client")]
            Self::Client(error) => error.kind(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.kind(),
            Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Attribute { .. } => "events.attribute",
            Self::Malformed(_) => "events.malformed",
            Self::Unsupported(_) => "events.unsupported",
            Self::TooLarge { .. } => "events.too_large",
            Self::Config { .. } => "events.config",
            Self::Full(_) => "events.full",
            Self::Closed => "events.closed",
            Self::NoSubscription(_) => "events.no_subscription",
            Self::Gone(_) => "events.gone",
            Self::Refused { .. } => "events.refused",
            Self::Broker(_) => "events.broker",
            #[cfg(feature = "client")]
            Self::Client(error) => error.code(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.code(),
            Self::Corrupt(_) => "events.corrupt",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Closed => Retry::Never,
            #[cfg(feature = "client")]
            Self::Client(error) => error.retry(),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Self::Db(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

/// What a receiver's status means for whoever published.
fn refused(status: u16) -> ErrorKind {
    match status {
        408 | 425 | 500 | 502..=504 => ErrorKind::Unavailable,
        429 => ErrorKind::RateLimited,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 | 410 => ErrorKind::NotFound,
        413 => ErrorKind::TooLarge,
        _ => ErrorKind::Invalid,
    }
}

runtime_kernel::into_error!(EventsError);

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl runtime_db::LostRace for EventsError {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_lost_race())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<runtime_db::sqlx::Error> for EventsError {
    fn from(error: runtime_db::sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}
