//! What reads rows.

use std::sync::Arc;

use runtime_db::Tx;
use runtime_kernel::Timestamp;

use super::run::{id, parse, rows, signed, time};
use crate::definition::{Version, VersionState};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{Due, InstanceFilter, Loaded, Standing, VersionFilter, page};
use crate::task::Task;

const VERSIONS: &str = "SELECT state, data FROM workflow_definitions WHERE tenant = $1
    AND (CAST($2 AS TEXT) IS NULL OR code = $2) AND (CAST($3 AS TEXT) IS NULL OR entity_type = $3)
    AND (CAST($4 AS TEXT) IS NULL OR state = $4) ORDER BY code, number DESC";
const LOAD: &str = "SELECT i.definition, i.data, a.fingerprint FROM workflow_instances i
    LEFT JOIN workflow_actions a ON a.tenant = i.tenant AND a.instance = i.id AND a.action = $3
    WHERE i.tenant = $1 AND i.id = $2";
const DUE: &str = "SELECT next_at, tenant, id FROM workflow_instances WHERE next_at <= $1
    AND (next_at > $2 OR (next_at = $2 AND id > $3)) ORDER BY next_at, id LIMIT $4";
const TASKS: &str =
    "SELECT data, weight + CASE WHEN due_at <= $3 THEN 100 WHEN warn_at <= $3 THEN 50 ELSE 0 END AS urgency
    FROM workflow_tasks WHERE tenant = $1 AND (CAST($2 AS TEXT) IS NULL OR holder = $2)
    ORDER BY urgency DESC, COALESCE(due_at, 9223372036854775807), opened_at, instance, seat, step LIMIT $4";
const STANDING: &str = "SELECT COUNT(*), COUNT(CASE WHEN due_at <= $1 THEN 1 END),
    (SELECT COUNT(*) FROM workflow_instances WHERE parked = 1) FROM workflow_tasks";
const INSTANCES: &str = "SELECT data FROM workflow_instances WHERE tenant = $1
    AND (CAST($2 AS TEXT) IS NULL OR status = $2) AND (CAST($3 AS BIGINT) IS NULL OR parked = $3)
    AND (CAST($4 AS TEXT) IS NULL OR entity_type = $4) AND (CAST($5 AS TEXT) IS NULL OR entity_id = $5)
    AND (CAST($6 AS TEXT) IS NULL OR requester = $6) AND (CAST($7 AS TEXT) IS NULL OR id < $7)
    ORDER BY id DESC LIMIT $8";
const EVENTS: &str = "SELECT data FROM workflow_events WHERE tenant = $1 AND instance = $2 AND number > $3
    ORDER BY number LIMIT $4";

pub(super) async fn versions(
    tx: &mut Tx,
    tenant: &str,
    filter: &VersionFilter,
) -> Result<Vec<Version>, WorkflowError> {
    let state = filter.state.map(VersionState::as_str);
    let found = rows!(tx, (String, String), VERSIONS, tenant, &filter.code, &filter.entity_type, state);
    let version = |(state, data): (String, String)| {
        let unknown = || WorkflowError::Corrupt(format!("`{state}` is no state of a version"));
        let state = VersionState::parse(&state).ok_or_else(unknown)?;
        // The column is what was changed since.
        Ok(Version { state, ..parse(&data)? })
    };
    found.into_iter().map(version).collect()
}

pub(super) async fn load(
    tx: &mut Tx,
    tenant: &str,
    id: InstanceId,
    action: Option<&str>,
    now: Timestamp,
) -> Result<Option<Loaded>, WorkflowError> {
    let found = rows!(tx, (String, String, Option<String>), LOAD, tenant, id.to_string(), action);
    let Some((definition, data, done)) = found.into_iter().next() else { return Ok(None) };
    Ok(Some(Loaded { definition: Arc::new(parse(&definition)?), instance: parse(&data)?, done, now }))
}

pub(super) async fn due(
    tx: &mut Tx,
    now: Timestamp,
    after: Option<&Due>,
    limit: u32,
) -> Result<Vec<Due>, WorkflowError> {
    let at = after.map_or(i64::MIN, |after| after.at.as_microsecond());
    let last = after.map(|after| after.id.to_string()).unwrap_or_default();
    let found = rows!(tx, (i64, String, String), DUE, now.as_microsecond(), at, &last, i64::from(limit));
    found
        .into_iter()
        .map(|(at, tenant, instance)| Ok(Due { at: time(at)?, tenant, id: id(&instance)? }))
        .collect()
}

pub(super) async fn tasks(
    tx: &mut Tx,
    now: Timestamp,
    tenant: &str,
    holder: Option<&str>,
    limit: u32,
) -> Result<Vec<(Task, i64)>, WorkflowError> {
    let limit = i64::from(page(Some(limit)));
    let found = rows!(tx, (String, i64), TASKS, tenant, holder, now.as_microsecond(), limit);
    found.into_iter().map(|(data, urgency)| Ok((parse(&data)?, urgency))).collect()
}

pub(super) async fn standing(tx: &mut Tx, now: Timestamp) -> Result<Standing, WorkflowError> {
    let found = rows!(tx, (i64, i64, i64), STANDING, now.as_microsecond());
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let standing = |&(open, overdue, parked): &(i64, i64, i64)| Standing {
        open: count(open),
        overdue: count(overdue),
        parked: count(parked),
    };
    Ok(found.first().map(standing).unwrap_or_default())
}

pub(super) async fn instances(
    tx: &mut Tx,
    tenant: &str,
    filter: &InstanceFilter,
) -> Result<Vec<Instance>, WorkflowError> {
    let found = rows!(
        tx,
        (String,),
        INSTANCES,
        tenant,
        filter.status.map(crate::instance::Status::as_str),
        filter.parked.map(i64::from),
        &filter.entity_type,
        &filter.entity_id,
        &filter.requester,
        filter.before.map(|before| before.to_string()),
        i64::from(page(filter.limit)),
    );
    found.iter().map(|(data,)| parse(data)).collect()
}

pub(super) async fn events(
    tx: &mut Tx,
    tenant: &str,
    id: InstanceId,
    after: u64,
    limit: u32,
) -> Result<Vec<Event>, WorkflowError> {
    let limit = i64::from(page(Some(limit)));
    let found = rows!(tx, (String,), EVENTS, tenant, id.to_string(), signed(after), limit);
    found.iter().map(|(data,)| parse(data)).collect()
}
