//! Rows as events, and values as they rest in columns.

use runtime_db::Dialect;
use runtime_db::sqlx::{self, Row};
use runtime_kernel::Timestamp;
use serde::de::DeserializeOwned;

use crate::cloudevent::CloudEvent;
use crate::error::EventsError;
use crate::log::Stored;
use crate::message::Message;

/// The columns [`stored`] reads, of `event_log l` and `event_data d`.
pub(super) const STORED: &str = "l.topic, l.position, d.event, d.context, d.published_at";

pub(super) fn stored<'r, R>(row: &'r R) -> Result<Stored, EventsError>
where
    R: Row,
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let event: String = row.try_get("event")?;
    let event =
        CloudEvent::from_json(event.as_bytes()).map_err(|error| EventsError::Corrupt(error.to_string()))?;
    let context = read(&row.try_get::<String, _>("context")?)?;
    Ok(Stored {
        position: number(row.try_get::<i64, _>("position")?),
        published_at: timestamp(row.try_get("published_at")?),
        message: Message { topic: row.try_get("topic")?, event, context },
    })
}

/// The rows of a list of numbers given as one JSON parameter.
pub(super) fn among(dialect: Dialect, parameter: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("(SELECT value FROM json_each({parameter}))"),
        Dialect::Postgres => {
            format!("(SELECT jsonb_array_elements_text(({parameter})::text::jsonb)::bigint)")
        }
    }
}

/// A lock on the rows read, where the database has such.
pub(super) fn lock(dialect: Dialect, how: &'static str) -> &'static str {
    if dialect == Dialect::Postgres { how } else { "" }
}

pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, EventsError> {
    serde_json::to_string(value).map_err(|error| EventsError::Malformed(error.to_string()))
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, EventsError> {
    serde_json::from_str(text).map_err(|error| EventsError::Corrupt(error.to_string()))
}

pub(super) fn number<N: TryFrom<i64> + Default>(value: i64) -> N {
    N::try_from(value).unwrap_or_default()
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
