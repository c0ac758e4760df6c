//! How sagas at rest change, worked out once for every store.

use runtime_kernel::Timestamp;

use crate::error::SagaError;
use crate::instance::{Asked, Instance, ParkReason, Status};
use crate::journal::{Entry, What};
use crate::store::{NewInstance, Remedy, Settle, check};

pub(crate) fn begin(new: &NewInstance, now: Timestamp) -> Instance {
    Instance {
        id: new.id,
        tenant: new.tenant.clone(),
        name: new.name.clone(),
        version: new.version,
        key: new.key.clone(),
        status: Status::Running,
        parked: None,
        input: new.input.clone(),
        output: None,
        failure: None,
        cancel: None,
        context: new.context.clone(),
        created_at: now,
        deadline: new.timeout.map(|timeout| now.saturating_add(timeout)),
        due_at: Some(now),
        ended_at: None,
        worker: None,
        fence: 0,
        pokes: 0,
    }
}

/// Where an instance that goes on stands.
pub(crate) fn going_on(instance: &Instance) -> Status {
    if instance.failure.is_some() { Status::Compensating } else { Status::Running }
}

/// A worker has it.
pub(crate) fn claim(instance: &mut Instance, worker: &str, until: Timestamp) {
    instance.status = going_on(instance);
    instance.parked = None;
    instance.worker = Some(worker.to_owned());
    instance.fence += 1;
    instance.due_at = Some(until);
}

/// The worker has it no longer.
pub(crate) fn settle(instance: &mut Instance, settle: &Settle, now: Timestamp) {
    instance.worker = None;
    match settle {
        Settle::Wait { until, failure, pokes } => {
            instance.failure.clone_from(failure);
            instance.status = going_on(instance);
            instance.due_at = if instance.pokes > *pokes { Some(now) } else { *until };
        }
        Settle::Park { reason, failure } => {
            instance.failure.clone_from(failure);
            instance.status = Status::Parked;
            instance.parked = Some(reason.clone());
            instance.due_at = None;
        }
        Settle::Completed(output) => {
            instance.output = Some(output.clone());
            end(instance, Status::Completed, now);
        }
        Settle::Compensated(failure) => {
            instance.failure = Some(failure.clone());
            end(instance, Status::Compensated, now);
        }
    }
}

fn end(instance: &mut Instance, status: Status, now: Timestamp) {
    instance.status = status;
    instance.due_at = None;
    instance.ended_at = Some(now);
}

/// Something came that it may wait for.
pub(crate) fn poke(instance: &mut Instance, now: Timestamp) {
    instance.pokes += 1;
    if instance.worker.is_none() && instance.parked.is_none() {
        instance.due_at = Some(now);
    }
}

pub(crate) fn cancel(instance: &mut Instance, asked: &Asked, now: Timestamp) -> Result<(), SagaError> {
    let may = !instance.status.is_over() && instance.failure.is_none();
    check(instance.id, instance.status, "cancelled", may)?;
    if instance.cancel.is_none() {
        instance.cancel = Some(asked.clone());
    }
    // What no worker knows stays parked, and is cancelled by the first that does.
    if instance.parked.is_some() && instance.due_at.is_none() {
        instance.parked = None;
        instance.status = Status::Running;
    }
    poke(instance, now);
    Ok(())
}

/// What an operator does, and the entry that says so.
pub(crate) fn remedy(
    instance: &mut Instance,
    remedy: Remedy,
    asked: &Asked,
    last: u64,
    now: Timestamp,
) -> Result<Entry, SagaError> {
    let action = if remedy == Remedy::Retry { "retried" } else { "resolved" };
    check(instance.id, instance.status, action, instance.status == Status::Parked)?;
    let asked = asked.clone();
    let (position, what) = match (remedy, &instance.parked) {
        (Remedy::Retry, _) => (String::new(), What::Retried { asked }),
        (Remedy::Resolve, Some(ParkReason::CompensationFailed { position, .. })) => {
            (position.clone(), What::Resolved { asked })
        }
        (Remedy::Resolve, _) => (String::new(), What::Resolved { asked }),
    };
    instance.parked = None;
    instance.status = going_on(instance);
    instance.due_at = Some(now);
    if remedy == Remedy::Resolve && position.is_empty() {
        end(instance, Status::Resolved, now);
    }
    Ok(Entry { seq: last + 1, at: now, position, what })
}
