//! The port: where sagas rest.

use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Carried, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::SagaError;
use crate::instance::{Asked, Failure, Instance, ParkReason, SagaId, Status};
use crate::journal::Entry;

/// A saga on its way into a store.
#[derive(Clone, Debug)]
pub struct NewInstance {
    /// The id it will have.
    pub id: SagaId,
    /// The namespace of its tenant.
    pub tenant: String,
    /// Its type.
    pub name: String,
    /// The type's version.
    pub version: u32,
    /// Unique among the tenant's sagas of this type, as long as they are kept.
    pub key: Option<String>,
    /// What it is given.
    pub input: Value,
    /// Who begins it, in which trace.
    pub context: Carried,
    /// How long it may take in all.
    pub timeout: Option<Duration>,
}

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The worker, by a name no other has.
    pub worker: String,
    /// The types it knows, as `name@version`. A saga of another type is never claimed.
    pub kinds: Vec<String>,
    /// At most so many.
    pub max: u32,
    /// How long the claim holds without a heartbeat.
    pub lease: Duration,
}

/// A claimed saga and all that is known of it.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The saga; its `fence` proves the claim.
    pub instance: Instance,
    /// Everything that has happened, in order.
    pub journal: Vec<Entry>,
    /// Every signal that has come, in order.
    pub signals: Vec<Signal>,
}

/// The answer to a claim.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The store's time.
    pub now: Timestamp,
    /// What was due, the longest due first.
    pub claimed: Vec<Claimed>,
    /// When something of these types is due next, when everything due was claimed.
    pub next: Option<Timestamp>,
}

/// A signal that has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its number among the saga's signals, from 1.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// The sender's own id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it brings.
    pub payload: Value,
    /// When it came.
    pub at: Timestamp,
}

/// A signal on its way.
#[derive(Clone, Debug)]
pub struct NewSignal {
    /// Its name.
    pub name: String,
    /// The sender's own id of it: a second one with the same id is not kept.
    pub id: Option<String>,
    /// What it brings.
    pub payload: Value,
}

/// How a claim ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Settle {
    /// To be claimed again at a time, or when poked; at once when it was poked more often than the claim saw.
    Wait {
        /// Until when; for a poke only when absent.
        until: Option<Timestamp>,
        /// Whether steps are being undone, and why.
        failure: Option<Failure>,
        /// [`Instance::pokes`] as far as the claim has seen them.
        pokes: u64,
    },
    /// It stands still.
    Park {
        /// Why.
        reason: ParkReason,
        /// Whether steps are being undone, and why.
        failure: Option<Failure>,
    },
    /// It is over: every step done.
    Completed(Value),
    /// It is over: undone.
    Compensated(Failure),
}

/// A saga a worker still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Which.
    pub id: SagaId,
    /// Under which claim.
    pub fence: u64,
    /// [`Instance::pokes`].
    pub pokes: u64,
    /// Whether it shall be cancelled.
    pub cancel: Option<Asked>,
}

/// What an operator does to a parked saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Goes on where it stopped.
    Retry,
    /// The failed compensation counts as done; parked for another reason, the whole saga is over.
    Resolve,
}

/// Which sagas to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only of this tenant's namespace; set by the service, never by a caller.
    #[serde(skip)]
    pub tenant: Option<String>,
    /// Only of this type.
    pub name: Option<String>,
    /// Only in this state.
    pub status: Option<Status>,
    /// Only with this key.
    pub key: Option<String>,
    /// Only older than this one: the keyset of the next page.
    pub before: Option<SagaId>,
    /// At most so many, newest first: 100 unless told, 1000 at most.
    pub limit: Option<u32>,
}

impl Filter {
    pub(crate) fn page(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }
}

/// Where sagas rest. Every operation is atomic. What is written under a claim is refused with
/// [`SagaError::LeaseLost`] once the saga was claimed again, so a journal has one writer at a time.
#[async_trait]
pub trait SagaStore: Send + Sync + 'static {
    /// Adds a saga that is due at once, unless the tenant has one of this type and key, whose id is the answer then.
    async fn start(&self, new: &NewInstance) -> Result<SagaId, SagaError>;

    /// Claims what is due: its time has come, or the lease of whoever had it has run out.
    async fn claim(&self, request: &ClaimRequest) -> Result<Claims, SagaError>;

    /// Adds to the journal of a claimed saga. `entry.seq` is one more than the last.
    async fn append(&self, id: SagaId, fence: u64, entry: &Entry) -> Result<(), SagaError>;

    /// Ends a claim.
    async fn settle(&self, id: SagaId, fence: u64, settle: &Settle) -> Result<(), SagaError>;

    /// Extends the claims of a worker, and says which it still has.
    async fn heartbeat(&self, worker: &str, held: &[SagaId], lease: Duration)
    -> Result<Vec<Beat>, SagaError>;

    /// Adds a signal to a saga that is not over, and makes it due; `false` when it has one with the same id.
    async fn signal(
        &self,
        tenant: &str,
        id: SagaId,
        signal: &NewSignal,
        most: u64,
    ) -> Result<bool, SagaError>;

    /// The signals of a saga with numbers above one.
    async fn signals(&self, id: SagaId, after: u64) -> Result<Vec<Signal>, SagaError>;

    /// Notes that a saga shall be cancelled, and makes it due; one that is parked stands still no longer.
    async fn cancel(&self, tenant: &str, id: SagaId, asked: &Asked) -> Result<(), SagaError>;

    /// Sees to a parked saga, and writes into its journal who did so.
    async fn remedy(&self, tenant: &str, id: SagaId, remedy: Remedy, asked: &Asked) -> Result<(), SagaError>;

    /// One saga of a tenant.
    async fn get(&self, tenant: &str, id: SagaId) -> Result<Option<Instance>, SagaError>;

    /// What has happened to a saga after a number, in order.
    async fn journal(&self, id: SagaId, after: u64, limit: u32) -> Result<Vec<Entry>, SagaError>;

    /// Sagas, newest first.
    async fn list(&self, filter: &Filter) -> Result<Vec<Instance>, SagaError>;

    /// How many are parked, of all tenants. A store that cannot count them lists them, and then finds 1000 at most.
    async fn parked(&self) -> Result<u64, SagaError> {
        let filter = Filter { status: Some(Status::Parked), limit: Some(1000), ..Filter::default() };
        Ok(self.list(&filter).await?.len() as u64)
    }

    /// Parks what has been due for so long and is of none of these types; it stays due for those who know it.
    async fn park_unregistered(&self, kinds: &[String], after: Duration, max: u32) -> Result<u64, SagaError>;

    /// Forgets sagas that were over so long ago.
    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, SagaError>;

    /// Tells workers of other processes that something has come; what cannot be told is found by polling.
    fn announce(&self) {}

    /// Waits until another process announces, or until that may have been missed.
    async fn announced(&self) {
        std::future::pending::<()>().await;
    }
}

/// What may be done to a saga in this state.
pub(crate) fn check(
    id: SagaId,
    status: Status,
    action: &'static str,
    allowed: bool,
) -> Result<(), SagaError> {
    if allowed { Ok(()) } else { Err(SagaError::WrongState { id, state: status.as_str(), action }) }
}
