//! A real store under which the ground can be shaken: something of the test's before and after what a worker asks of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use runtime_saga::store::{
    Beat, ClaimRequest, Claims, Filter, NewInstance, NewSignal, Remedy, SagaStore, Settle, Signal,
};
use runtime_saga::{Asked, Entry, Instance, SagaError, SagaId};

/// Before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// Where the test comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Append(When),
    Settle(When),
    /// After a claim that got something.
    Claimed,
    Heartbeat(When),
}

type Hook = dyn Fn(At) -> BoxFuture<'static, Result<(), SagaError>> + Send + Sync;

pub struct Hooked {
    inner: Arc<dyn SagaStore>,
    hook: Box<Hook>,
}

impl Hooked {
    /// An error of the hook's is what the worker gets.
    pub fn over<F>(
        inner: Arc<dyn SagaStore>,
        hook: impl Fn(At) -> F + Send + Sync + 'static,
    ) -> Arc<dyn SagaStore>
    where
        F: Future<Output = Result<(), SagaError>> + Send + 'static,
    {
        Arc::new(Self { inner, hook: Box::new(move |at| hook(at).boxed()) })
    }
}

#[async_trait]
impl SagaStore for Hooked {
    async fn append(&self, id: SagaId, fence: u64, entry: &Entry) -> Result<(), SagaError> {
        (self.hook)(At::Append(When::Before)).await?;
        self.inner.append(id, fence, entry).await?;
        (self.hook)(At::Append(When::After)).await
    }
    async fn settle(&self, id: SagaId, fence: u64, settle: &Settle) -> Result<(), SagaError> {
        (self.hook)(At::Settle(When::Before)).await?;
        self.inner.settle(id, fence, settle).await?;
        (self.hook)(At::Settle(When::After)).await
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Claims, SagaError> {
        let claims = self.inner.claim(request).await?;
        if !claims.claimed.is_empty() {
            (self.hook)(At::Claimed).await?;
        }
        Ok(claims)
    }
    async fn heartbeat(
        &self,
        worker: &str,
        held: &[SagaId],
        lease: Duration,
    ) -> Result<Vec<Beat>, SagaError> {
        (self.hook)(At::Heartbeat(When::Before)).await?;
        let beats = self.inner.heartbeat(worker, held, lease).await?;
        (self.hook)(At::Heartbeat(When::After)).await?;
        Ok(beats)
    }
    async fn start(&self, new: &NewInstance) -> Result<SagaId, SagaError> {
        self.inner.start(new).await
    }
    async fn signal(&self, tenant: &str, id: SagaId, new: &NewSignal, most: u64) -> Result<bool, SagaError> {
        self.inner.signal(tenant, id, new, most).await
    }
    async fn signals(&self, id: SagaId, after: u64) -> Result<Vec<Signal>, SagaError> {
        self.inner.signals(id, after).await
    }
    async fn cancel(&self, tenant: &str, id: SagaId, asked: &Asked) -> Result<(), SagaError> {
        self.inner.cancel(tenant, id, asked).await
    }
    async fn remedy(&self, tenant: &str, id: SagaId, what: Remedy, asked: &Asked) -> Result<(), SagaError> {
        self.inner.remedy(tenant, id, what, asked).await
    }
    async fn get(&self, tenant: &str, id: SagaId) -> Result<Option<Instance>, SagaError> {
        self.inner.get(tenant, id).await
    }
    async fn journal(&self, id: SagaId, after: u64, limit: u32) -> Result<Vec<Entry>, SagaError> {
        self.inner.journal(id, after, limit).await
    }
    async fn list(&self, filter: &Filter) -> Result<Vec<Instance>, SagaError> {
        self.inner.list(filter).await
    }
    async fn park_unregistered(&self, kinds: &[String], after: Duration, max: u32) -> Result<u64, SagaError> {
        self.inner.park_unregistered(kinds, after, max).await
    }
    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, SagaError> {
        self.inner.prune(keep, max).await
    }
}
