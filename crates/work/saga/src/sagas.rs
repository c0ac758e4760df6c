//! The sagas of a service: start, signal, look, cancel, and what operators do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Context, SharedClock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use crate::config::SagaConfig;
use crate::definition::Definitions;
use crate::error::SagaError;
use crate::instance::{Asked, Instance, SagaId};
use crate::store::{Filter, NewInstance, NewSignal, Remedy, SagaStore};
use crate::views::{SagaView, Seen, SignalView};

/// Reasons, names and keys are no longer than this, in bytes.
const LONGEST: usize = 1000;

/// A saga to be started: `{"saga": "order", "input": {…}, "key": "order-17"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSaga {
    /// Its type.
    pub saga: String,
    /// The version; the newest this process knows when absent.
    #[serde(default)]
    pub version: Option<u32>,
    /// What it is given.
    #[serde(default)]
    pub input: Value,
    /// Starts it once: there is one saga per tenant, type and key for as long as it is kept.
    #[serde(default)]
    pub key: Option<String>,
    /// How long it may take in all; as its type says when absent.
    #[serde(default, with = "runtime_kernel::units::duration_option")]
    pub timeout: Option<Duration>,
}

impl NewSaga {
    /// Of this type, given this.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] for an input that is not JSON.
    pub fn new(saga: impl Into<String>, input: impl Serialize) -> Result<Self, SagaError> {
        let input = serde_json::to_value(input).map_err(|error| SagaError::Invalid(error.to_string()))?;
        Ok(Self { saga: saga.into(), version: None, input, key: None, timeout: None })
    }

    /// Once under this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Of this version.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// For so long at most.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A signal to be sent: `{"name": "paid", "payload": {…}, "id": "…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Its name.
    pub name: String,
    /// What it brings.
    #[serde(default)]
    pub payload: Value,
    /// The sender's own id of it: kept once however often it is sent.
    #[serde(default)]
    pub id: Option<String>,
}

/// Why somebody cancels, retries or resolves: `{"reason": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// Why; needed.
    pub reason: String,
}

/// The sagas of a service. Cheap to clone; every call is about the tenant of its context and no other.
#[derive(Clone)]
pub struct Sagas {
    store: Arc<dyn SagaStore>,
    definitions: Arc<Definitions>,
    config: Arc<SagaConfig>,
    clock: SharedClock,
    wake: Arc<Notify>,
}

impl Sagas {
    /// Over a store, knowing these types.
    pub fn new(
        store: Arc<dyn SagaStore>,
        definitions: Definitions,
        config: SagaConfig,
        clock: SharedClock,
    ) -> Self {
        let (definitions, config) = (Arc::new(definitions), Arc::new(config));
        Self { store, definitions, config, clock, wake: Arc::default() }
    }

    /// Begins a saga; its id, or that of the one the key began before.
    ///
    /// # Errors
    /// [`SagaError::UnknownType`], [`SagaError::TooLarge`], [`SagaError::Invalid`].
    pub async fn start(&self, context: &Context, new: NewSaga) -> Result<SagaId, SagaError> {
        let id = self.store.start(&self.instance(context, new)?).await?;
        self.ring();
        Ok(id)
    }

    /// The same inside a transaction of the caller's: the saga exists when, and only when, that commits, which also wakes
    /// the workers. `store` must be the one these sagas are over.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub async fn start_in(
        &self,
        tx: &mut runtime_db::Tx,
        store: &crate::SqlSagas,
        context: &Context,
        new: NewSaga,
    ) -> Result<SagaId, SagaError> {
        let id = store.start_in(tx, &self.instance(context, new)?).await?;
        let sagas = self.clone();
        tx.on_commit(move || sagas.ring());
        Ok(id)
    }

    /// Sends a signal; `false` when one with the same id was sent before. It is kept until the saga waits for it.
    ///
    /// # Errors
    /// [`SagaError::NotFound`]; [`SagaError::WrongState`] once the saga is over; [`SagaError::TooManySignals`];
    /// [`SagaError::TooLarge`]; [`SagaError::Invalid`].
    pub async fn signal(
        &self,
        context: &Context,
        id: SagaId,
        signal: SignalRequest,
    ) -> Result<bool, SagaError> {
        said("name", &signal.name)?;
        if let Some(id) = &signal.id {
            said("id", id)?;
        }
        self.fits("signal", &signal.payload)?;
        let SignalRequest { name, payload, id: own } = signal;
        let signal = NewSignal { name, id: own, payload };
        let new = self.store.signal(&namespace(context), id, &signal, self.config.max_signals).await?;
        self.ring();
        Ok(new)
    }

    /// Asks for a saga to be undone. What runs is let finish; then everything done is compensated.
    ///
    /// # Errors
    /// [`SagaError::NotFound`]; [`SagaError::WrongState`] when it is over or being undone already;
    /// [`SagaError::Invalid`] without a reason.
    pub async fn cancel(&self, context: &Context, id: SagaId, reason: &str) -> Result<(), SagaError> {
        self.store.cancel(&namespace(context), id, &asked(context, reason)?).await?;
        self.ring();
        Ok(())
    }

    /// Lets a parked saga go on where it stopped; a compensation that failed for good gets all its attempts again.
    ///
    /// # Errors
    /// [`SagaError::NotFound`]; [`SagaError::WrongState`] when it is not parked; [`SagaError::Invalid`] without a reason.
    pub async fn retry(&self, context: &Context, id: SagaId, reason: &str) -> Result<(), SagaError> {
        self.remedy(context, id, Remedy::Retry, reason).await
    }

    /// Says that what a parked saga stopped at has been seen to by hand: a compensation that failed for good counts as
    /// done, and the others follow. Parked for any other reason, the saga is over as it is: nothing more is done or undone.
    ///
    /// # Errors
    /// As [`retry`](Self::retry).
    pub async fn resolve(&self, context: &Context, id: SagaId, reason: &str) -> Result<(), SagaError> {
        self.remedy(context, id, Remedy::Resolve, reason).await
    }

    async fn remedy(&self, context: &Context, id: SagaId, what: Remedy, why: &str) -> Result<(), SagaError> {
        self.store.remedy(&namespace(context), id, what, &asked(context, why)?).await?;
        self.ring();
        Ok(())
    }

    /// A saga.
    ///
    /// # Errors
    /// [`SagaError::NotFound`].
    pub async fn get(&self, context: &Context, id: SagaId) -> Result<Instance, SagaError> {
        self.store.get(&namespace(context), id).await?.ok_or(SagaError::NotFound(id))
    }

    /// A saga, what has happened to it after an entry's number (at most 1000 entries), and its signals.
    ///
    /// # Errors
    /// [`SagaError::NotFound`].
    pub async fn show(&self, context: &Context, id: SagaId, after: u64) -> Result<Seen, SagaError> {
        const MOST: u32 = 1000;
        let instance = self.get(context, id).await?;
        let journal = self.store.journal(id, after, MOST).await?;
        let signals = self.store.signals(id, 0).await?;
        let signals = signals.into_iter().map(SignalView::from).collect();
        Ok(Seen {
            saga: SagaView::from(&instance),
            input: instance.input,
            output: instance.output,
            journal,
            signals,
        })
    }

    /// The tenant's sagas, newest first. `status: parked` lists what needs an operator.
    ///
    /// # Errors
    /// Of the store.
    pub async fn list(&self, context: &Context, filter: Filter) -> Result<Vec<SagaView>, SagaError> {
        let filter = Filter { tenant: Some(namespace(context)), ..filter };
        Ok(self.store.list(&filter).await?.iter().map(SagaView::from).collect())
    }

    /// Where they rest.
    pub fn store(&self) -> &Arc<dyn SagaStore> {
        &self.store
    }

    /// What an operator has set.
    pub fn config(&self) -> &SagaConfig {
        &self.config
    }

    /// The types known here.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Where time comes from.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub(crate) fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    fn instance(&self, context: &Context, new: NewSaga) -> Result<NewInstance, SagaError> {
        let known = match new.version {
            Some(version) => self.definitions.get(&new.saga, version),
            None => self.definitions.newest(&new.saga),
        };
        let unknown = || SagaError::UnknownType(new.saga.chars().take(100).collect());
        let definition = known.ok_or_else(unknown)?;
        self.fits("input", &new.input)?;
        if let Some(key) = &new.key {
            said("key", key)?;
        }
        Ok(NewInstance {
            id: SagaId::new(&*self.clock),
            tenant: namespace(context),
            name: definition.name().to_owned(),
            version: definition.version(),
            key: new.key,
            input: new.input,
            context: context.carry(&*self.clock),
            timeout: new.timeout.or(definition.timeout),
        })
    }

    fn ring(&self) {
        self.wake.notify_one();
        self.store.announce();
    }

    fn fits(&self, what: &'static str, value: &Value) -> Result<(), SagaError> {
        let (size, limit) = (value.to_string().len(), self.config.payload_limit());
        if size <= limit { Ok(()) } else { Err(SagaError::TooLarge { what, size, limit }) }
    }
}

impl fmt::Debug for Sagas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas").field("definitions", &self.definitions).finish_non_exhaustive()
    }
}

fn namespace(context: &Context) -> String {
    context.tenant.as_ref().map(|tenant| tenant.namespace()).unwrap_or_default()
}

fn asked(context: &Context, reason: &str) -> Result<Asked, SagaError> {
    said("reason", reason)?;
    let by = context.principal.as_ref().map(|principal| principal.id.to_string());
    Ok(Asked { by, reason: reason.to_owned() })
}

fn said(what: &str, text: &str) -> Result<(), SagaError> {
    if text.trim().is_empty() || text.len() > LONGEST {
        return Err(SagaError::Invalid(format!("`{what}` must have 1 to {LONGEST} bytes")));
    }
    Ok(())
}
