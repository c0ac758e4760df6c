//! Sagas as an API shows them.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::instance::{Asked, Failure, Instance, ParkReason, SagaId, Status};
use crate::journal::Entry;
use crate::store::Signal;

/// A saga in a list: without what it was given and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SagaView {
    /// Which.
    pub id: SagaId,
    /// Its type.
    pub saga: String,
    /// Its version.
    pub version: u32,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkReason>,
    /// Why it is, or was, compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Who asked for it to be cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Asked>,
    /// The trace of whoever began it, as a `traceparent`.
    pub traceparent: String,
    /// Who began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it is cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When it goes on at the latest; none while it waits for a signal only, is parked or over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Which worker has it in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

impl From<&Instance> for SagaView {
    fn from(instance: &Instance) -> Self {
        let instance = instance.clone();
        Self {
            id: instance.id,
            saga: instance.name,
            version: instance.version,
            key: instance.key,
            status: instance.status,
            parked: instance.parked,
            failure: instance.failure,
            cancel: instance.cancel,
            traceparent: instance.context.traceparent,
            started_by: instance.context.principal,
            created_at: instance.created_at,
            deadline: instance.deadline,
            due_at: instance.due_at,
            ended_at: instance.ended_at,
            worker: instance.worker,
        }
    }
}

/// A saga with everything about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The saga.
    #[serde(flatten)]
    pub saga: SagaView,
    /// What it was given.
    pub input: Value,
    /// What came of it.
    pub output: Option<Value>,
    /// What has happened.
    pub journal: Vec<Entry>,
    /// The signals it was sent, consumed ones included; the journal says which were.
    pub signals: Vec<SignalView>,
}

/// A signal without what it brings: the journal has that once it is consumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalView {
    /// Its number among the saga's signals.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// The sender's own id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it came.
    pub at: Timestamp,
}

impl From<Signal> for SignalView {
    fn from(signal: Signal) -> Self {
        Self { number: signal.number, name: signal.name, id: signal.id, at: signal.at }
    }
}
