//! Statements, and values turned into what columns hold.

use runtime_kernel::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WorkflowError;
use crate::instance::InstanceId;

pub(super) use runtime_db::{change, tuples as rows};

pub(super) fn time(micros: i64) -> Result<Timestamp, WorkflowError> {
    Timestamp::from_microsecond(micros).map_err(|_| WorkflowError::Corrupt(format!("{micros} is no time")))
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_microsecond)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, WorkflowError> {
    serde_json::to_string(value).map_err(|error| WorkflowError::Corrupt(error.to_string()))
}

pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, WorkflowError> {
    serde_json::from_str(text).map_err(|error| WorkflowError::Corrupt(error.to_string()))
}

pub(super) fn id(text: &str) -> Result<InstanceId, WorkflowError> {
    text.parse().map_err(|_| WorkflowError::Corrupt(format!("`{text}` is no instance id")))
}
