//! What changes rows. Each function is one transaction's work.

use runtime_db::Tx;

use super::run::{change, id, json, micros, rows, signed};
use crate::definition::{Definition, Version, VersionState};
use crate::error::WorkflowError;
use crate::instance::{Instance, InstanceId};
use crate::store::Change;

const ADD_VERSION: &str = "INSERT INTO workflow_definitions (tenant, code, number, state, entity_type, data)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, code, number) DO NOTHING";
const DEPRECATE: &str = "UPDATE workflow_definitions SET state = 'deprecated'
    WHERE tenant = $1 AND code = $2 AND number <> $3 AND state = 'active'";
const SET_STATE: &str = "UPDATE workflow_definitions SET state = $5
    WHERE tenant = $1 AND code = $2 AND number = $3 AND state = $4";
const CREATE: &str =
    "INSERT INTO workflow_instances (tenant, id, revision, status, running, parked, next_at, data,
    entity_type, entity_id, requester, definition)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING";
const HOLDER: &str = "SELECT id FROM workflow_instances
    WHERE tenant = $1 AND entity_type = $2 AND entity_id = $3 AND running = 1";
const UPDATE: &str = "UPDATE workflow_instances
    SET revision = $3, status = $4, running = $5, parked = $6, next_at = $7, data = $8
    WHERE tenant = $1 AND id = $2 AND revision = $9";
const EVENT: &str =
    "INSERT INTO workflow_events (tenant, instance, number, at, data) VALUES ($1, $2, $3, $4, $5)";
const ACTION: &str =
    "INSERT INTO workflow_actions (tenant, instance, action, fingerprint) VALUES ($1, $2, $3, $4)";
const CLEAR_TASKS: &str = "DELETE FROM workflow_tasks WHERE tenant = $1 AND instance = $2";
const TASK: &str =
    "INSERT INTO workflow_tasks (tenant, instance, step, seat, holder, weight, opened_at, warn_at, due_at,
    data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

pub(super) async fn add_version(tx: &mut Tx, tenant: &str, version: &Version) -> Result<bool, WorkflowError> {
    let definition = &version.definition;
    let data = json(version)?;
    let added = change!(
        tx,
        ADD_VERSION,
        tenant,
        &definition.code,
        i64::from(version.number),
        version.state.as_str(),
        &definition.entity_type,
        &data,
    );
    Ok(added == 1)
}

pub(super) async fn set_state(
    tx: &mut Tx,
    tenant: &str,
    code: &str,
    number: u32,
    from: VersionState,
    to: VersionState,
) -> Result<bool, WorkflowError> {
    // The other one first: at no time may two be active.
    let taken = rows!(
        tx,
        (i64,),
        "SELECT number FROM workflow_definitions WHERE tenant = $1 AND code = $2 AND number = $3 AND state = $4",
        tenant,
        code,
        i64::from(number),
        from.as_str(),
    );
    if taken.is_empty() {
        return Ok(false);
    }
    if to == VersionState::Active {
        change!(tx, DEPRECATE, tenant, code, i64::from(number));
    }
    let set = change!(tx, SET_STATE, tenant, code, i64::from(number), from.as_str(), to.as_str());
    Ok(set == 1)
}

pub(super) async fn create(
    tx: &mut Tx,
    definition: &Definition,
    new: &Change,
) -> Result<Option<InstanceId>, WorkflowError> {
    let instance = &new.instance;
    let (frozen, data) = (json(definition)?, json(instance)?);
    let created = change!(
        tx,
        CREATE,
        &instance.tenant,
        instance.id.to_string(),
        signed(instance.revision),
        instance.status.as_str(),
        i64::from(!instance.status.is_end()),
        i64::from(instance.is_parked()),
        micros(instance.next_at()),
        &data,
        &instance.entity_type,
        &instance.entity_id,
        &instance.requester,
        &frozen,
    );
    if created == 1 {
        record(tx, new).await?;
        return Ok(None);
    }
    let other = rows!(tx, (String,), HOLDER, &instance.tenant, &instance.entity_type, &instance.entity_id);
    // It may have ended between the two statements; the caller sees who was in the way, or tries again.
    match other.first() {
        Some((other,)) => id(other).map(Some),
        None => Err(runtime_db::DbError::Serialization.into()),
    }
}

pub(super) async fn commit(tx: &mut Tx, new: &Change) -> Result<bool, WorkflowError> {
    let instance = &new.instance;
    let data = json(instance)?;
    let updated = change!(
        tx,
        UPDATE,
        &instance.tenant,
        instance.id.to_string(),
        signed(instance.revision),
        instance.status.as_str(),
        i64::from(!instance.status.is_end()),
        i64::from(instance.is_parked()),
        micros(instance.next_at()),
        &data,
        signed(new.from),
    );
    if updated == 1 {
        record(tx, new).await?;
    }
    Ok(updated == 1)
}

/// Events, the action's mark and the tasks, beside the instance that was just written.
async fn record(tx: &mut Tx, new: &Change) -> Result<(), WorkflowError> {
    let instance = &new.instance;
    let key = instance.id.to_string();
    for event in &new.events {
        let data = json(event)?;
        change!(tx, EVENT, &instance.tenant, &key, signed(event.number), event.at.as_microsecond(), &data);
    }
    if let Some(mark) = &new.mark {
        change!(tx, ACTION, &instance.tenant, &key, &mark.id, &mark.fingerprint);
    }
    if new.from > 0 {
        change!(tx, CLEAR_TASKS, &instance.tenant, &key);
    }
    tasks(tx, instance, &key).await
}

async fn tasks(tx: &mut Tx, instance: &Instance, key: &str) -> Result<(), WorkflowError> {
    for task in instance.tasks() {
        let data = json(&task)?;
        change!(
            tx,
            TASK,
            &instance.tenant,
            key,
            &task.step,
            i64::from(task.seat),
            &task.holder,
            task.weight(),
            task.opened_at.as_microsecond(),
            micros(task.warn_at),
            micros(task.due_at),
            &data,
        );
    }
    Ok(())
}
