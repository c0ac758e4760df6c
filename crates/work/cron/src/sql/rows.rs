//! Values as they rest in columns.

use std::time::Duration;

use runtime_kernel::Timestamp;
use serde::de::DeserializeOwned;

use crate::error::CronError;
use crate::store::{Origin, TickState};

pub(super) const COLUMNS: &str = "tenant, name, schedule, revision, paused, origin, context, next_at";

/// A row of [`COLUMNS`] as a schedule.
macro_rules! stored {
    ($row:ident) => {
        crate::store::Stored {
            key: crate::store::Key { tenant: $row.try_get("tenant")?, name: $row.try_get("name")? },
            schedule: crate::sql::rows::read(&$row.try_get::<String, _>("schedule")?)?,
            revision: crate::sql::rows::number($row.try_get("revision")?),
            paused: $row.try_get::<i64, _>("paused")? == 1,
            origin: crate::sql::rows::origin(&$row.try_get::<String, _>("origin")?)?,
            context: crate::sql::rows::read(&$row.try_get::<String, _>("context")?)?,
            next: $row.try_get::<Option<i64>, _>("next_at")?.map(crate::sql::rows::timestamp),
        }
    };
}

pub(super) use stored;

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, CronError> {
    serde_json::to_string(value).map_err(|error| CronError::Corrupt(error.to_string()))
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, CronError> {
    serde_json::from_str(text).map_err(|error| CronError::Corrupt(error.to_string()))
}

pub(super) fn origin(text: &str) -> Result<Origin, CronError> {
    Origin::parse(text).ok_or_else(|| CronError::Corrupt(format!("unknown origin `{text}`")))
}

pub(super) fn state(text: &str) -> Result<TickState, CronError> {
    TickState::parse(text).ok_or_else(|| CronError::Corrupt(format!("unknown state `{text}`")))
}

pub(super) fn number<N: TryFrom<i64> + Default>(value: i64) -> N {
    N::try_from(value).unwrap_or_default()
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
