//! How an instance lies in its row.

use runtime_db::Tx;
use runtime_kernel::{Carried, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows;
use crate::error::SagaError;
use crate::instance::{Instance, Status, kind_of};

/// The columns [`Row`] reads, in its order.
pub(super) const COLUMNS: &str = "id, tenant, name, unique_key, status, due_at, fence, pokes, worker, ended_at, parked, cancel, failure, output, head";

type S = Option<String>;
pub(super) type Row =
    (String, String, String, S, String, Option<i64>, i64, i64, S, Option<i64>, S, S, S, S, String);

/// What never changes.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    input: Value,
    context: Carried,
    created_at: Timestamp,
    deadline: Option<Timestamp>,
}

pub(super) fn instance(row: Row) -> Result<Instance, SagaError> {
    let (
        id,
        tenant,
        name,
        key,
        status,
        due_at,
        fence,
        pokes,
        worker,
        ended_at,
        parked,
        cancel,
        failure,
        output,
        head,
    ) = row;
    let head: Head = parse(&head)?;
    Ok(Instance {
        id: id.parse().map_err(|_| SagaError::Corrupt(format!("`{id}` is no id")))?,
        tenant,
        name,
        version: head.version,
        key,
        status: Status::parse(&status)
            .ok_or_else(|| SagaError::Corrupt(format!("`{status}` is no state")))?,
        parked: optional(parked)?,
        input: head.input,
        output: optional(output)?,
        failure: optional(failure)?,
        cancel: optional(cancel)?,
        context: head.context,
        created_at: head.created_at,
        deadline: head.deadline,
        due_at: due_at.map(time).transpose()?,
        ended_at: ended_at.map(time).transpose()?,
        worker,
        fence: unsigned(fence),
        pokes: unsigned(pokes),
    })
}

const INSERT: &str =
    "INSERT INTO saga_instances (id, tenant, name, kind, unique_key, status, due_at, fence, pokes, head)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $8) ON CONFLICT DO NOTHING";

/// Writes a new one, unless its key is taken.
pub(super) async fn insert(tx: &mut Tx, new: &Instance) -> Result<bool, SagaError> {
    let head = Head {
        version: new.version,
        input: new.input.clone(),
        context: new.context.clone(),
        created_at: new.created_at,
        deadline: new.deadline,
    };
    let (kind, due) = (kind_of(&new.name, new.version), micros(new.due_at));
    let head = json(&head)?;
    let added = super::execute!(
        tx,
        INSERT,
        new.id.to_string(),
        &new.tenant,
        &new.name,
        &kind,
        new.key.as_deref(),
        new.status.as_str(),
        due,
        &head,
    );
    Ok(added == 1)
}

const UPDATE: &str =
    "UPDATE saga_instances SET status = $2, due_at = $3, pokes = $4, worker = $5, ended_at = $6,
    parked = $7, cancel = $8, failure = $9, output = $10 WHERE id = $1";

/// Writes what may have changed; the row is locked.
pub(super) async fn update(tx: &mut Tx, changed: &Instance) -> Result<(), SagaError> {
    super::execute!(
        tx,
        UPDATE,
        changed.id.to_string(),
        changed.status.as_str(),
        micros(changed.due_at),
        signed(changed.pokes),
        changed.worker.as_deref(),
        micros(changed.ended_at),
        optional_json(changed.parked.as_ref())?,
        optional_json(changed.cancel.as_ref())?,
        optional_json(changed.failure.as_ref())?,
        optional_json(changed.output.as_ref())?,
    );
    Ok(())
}

/// The text of one column of each row.
pub(super) async fn texts<T: DeserializeOwned>(
    tx: &mut Tx,
    sql: &'static str,
    id: &str,
    after: u64,
    limit: i64,
) -> Result<Vec<T>, SagaError> {
    let found = rows!(tx, (String,), sql, id, signed(after), limit);
    found.iter().map(|(data,)| parse(data)).collect()
}

pub(super) fn time(micros: i64) -> Result<Timestamp, SagaError> {
    Timestamp::from_microsecond(micros).map_err(|_| SagaError::Corrupt(format!("{micros} is no time")))
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_microsecond)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, SagaError> {
    // Postgres keeps no NUL in text; JSON writes it as an escape, which is text like any other.
    serde_json::to_string(value).map_err(|error| SagaError::Corrupt(error.to_string()))
}

fn optional_json<T: Serialize>(value: Option<&T>) -> Result<Option<String>, SagaError> {
    value.map(json).transpose()
}

pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, SagaError> {
    serde_json::from_str(text).map_err(|error| SagaError::Corrupt(error.to_string()))
}

fn optional<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, SagaError> {
    text.map(|text| parse(&text)).transpose()
}
