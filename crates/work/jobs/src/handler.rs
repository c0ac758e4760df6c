//! What runs a job: typed handlers, by kind.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use runtime_kernel::{Context, Error, ErrorKind, Retry};
use runtime_resilience::RetryPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::JobsError;
use crate::job::{Enqueued, JobId, NewJob};
use crate::layer::{LayerFn, Next};
use crate::limit::Limit;
use crate::links::{Batch, Prerequisite};
use crate::queue::Jobs;

/// A payload type and the name of its kind.
pub trait JobKind: Serialize + DeserializeOwned + Send + 'static {
    /// The kind's stable name: `"mail.send"`.
    const KIND: &'static str;
}

/// What a handler gets beside its payload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobContext {
    /// Trace, remaining deadline, tenant and request id of the work.
    pub context: Context,
    /// The job: a good idempotency key for whatever the handler calls.
    pub id: JobId,
    /// Its kind.
    pub kind: Arc<str>,
    /// The queue it waited in.
    pub queue: Arc<str>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Attempts allowed.
    pub max_attempts: u32,
    /// Fires when the handler should stop: a cancel was asked for, the lease is lost, or the worker's drain is over.
    pub cancelled: CancellationToken,
    pub(crate) fence: u64,
    pub(crate) jobs: Jobs,
    /// The job was completed in a transaction of the handler's.
    #[cfg_attr(
        not(any(feature = "sqlite", feature = "postgres")),
        expect(dead_code, reason = "memory has none")
    )]
    pub(crate) settled: Arc<AtomicBool>,
}

impl JobContext {
    /// Keeps how far the job is, for people to see with [`Jobs::progress`].
    ///
    /// # Errors
    /// [`JobsError::LeaseLost`] when another attempt may have begun; stop then. What the store brings.
    pub async fn progress(&self, progress: &impl Serialize) -> Result<(), JobsError> {
        let progress =
            serde_json::to_value(progress).map_err(|error| JobsError::Invalid(error.to_string()))?;
        self.jobs.store().keep_progress(self.id, self.fence, Some(&progress), None).await
    }

    /// Keeps where a later attempt shall go on, replacing what was kept before. Durable once this returns.
    ///
    /// # Errors
    /// As [`progress`](Self::progress).
    pub async fn checkpoint(&self, checkpoint: &impl Serialize) -> Result<(), JobsError> {
        let checkpoint =
            serde_json::to_value(checkpoint).map_err(|error| JobsError::Invalid(error.to_string()))?;
        self.jobs.store().keep_progress(self.id, self.fence, None, Some(&checkpoint)).await
    }

    /// What an earlier attempt kept; `None` when there is nothing.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] when it is no `T`: another version of the handler kept it. What the store brings.
    pub async fn last_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, JobsError> {
        let kept = self.jobs.store().progress(self.id).await?.checkpoint;
        kept.map(serde_json::from_value)
            .transpose()
            .map_err(|error| JobsError::Invalid(format!("the checkpoint does not parse: {error}")))
    }

    /// The jobs this one waited for, in the order they were named, with how they ended and what they returned.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn prerequisites(&self) -> Result<Vec<Prerequisite>, JobsError> {
        Ok(self.jobs.store().links(self.id).await?.after)
    }

    /// The batch that counts this job; for a callback, the batch it waited for.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn batch(&self) -> Result<Option<Batch>, JobsError> {
        let links = self.jobs.store().links(self.id).await?;
        match links.after_batch.or(links.batch) {
            Some(id) => self.jobs.store().batch(id, None).await,
            None => Ok(None),
        }
    }

    /// Adds jobs to the batch that counts this one, which stays open at least as long as this one runs.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] when no batch counts it; [`JobsError::BatchOver`] when the batch has been cancelled; else as
    /// [`Jobs::enqueue`].
    pub async fn add_to_batch(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, JobsError> {
        let Some(batch) = self.jobs.store().links(self.id).await?.batch else {
            return Err(JobsError::Invalid("the job is no member of a batch".to_owned()));
        };
        let jobs = jobs.into_iter().map(|job| job.in_batch(batch)).collect();
        self.jobs.enqueue_many(&self.context, jobs).await
    }

    /// The error a handler returns to be run again after a delay without having failed: the attempt is not counted.
    pub fn snooze(&self, delay: Duration) -> Error {
        Error::new(ErrorKind::Unavailable, SNOOZED, "to be run later").with_retry(Retry::After(delay))
    }

    /// Completes the job inside a transaction of the handler's: what it did and that it is done are kept together, or not
    /// at all. Let it be the transaction's last statement, and return `Ok` after the commit; when the transaction is undone
    /// the job goes on as if this had not been called.
    ///
    /// # Errors
    /// [`JobsError::LeaseLost`] when another attempt may have begun: undo the transaction. What the store brings.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub async fn complete_in(
        &self,
        tx: &mut runtime_db::Tx,
        store: &crate::SqlStore,
        result: &impl Serialize,
    ) -> Result<(), JobsError> {
        let result = serde_json::to_value(result).map_err(|error| JobsError::Invalid(error.to_string()))?;
        let released = store.settle_in(tx, self.id, self.fence, result).await?;
        let (settled, jobs) = (Arc::clone(&self.settled), self.jobs.clone());
        tx.on_commit(move || {
            settled.store(true, std::sync::atomic::Ordering::Release);
            if released {
                jobs.wake.notify_one();
            }
        });
        Ok(())
    }
}

/// The code of the error that snoozes.
pub(crate) const SNOOZED: &str = "jobs.snoozed";

type HandlerFuture = Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;
/// A handler of a payload as it is stored: JSON.
pub(crate) type HandlerFn = dyn Fn(JobContext, Arc<str>) -> HandlerFuture + Send + Sync;

/// One kind's handler.
#[derive(Clone)]
pub(crate) struct Handler {
    run: Arc<HandlerFn>,
    pub(crate) policy: Option<RetryPolicy>,
    pub(crate) limit: Option<Limit>,
    /// The layers around it; the outermost first.
    layers: Arc<[Arc<LayerFn>]>,
}

impl Handler {
    pub(crate) async fn handle(&self, job: JobContext, payload: Arc<str>) -> Result<Value, Error> {
        if self.layers.is_empty() {
            return (self.run)(job, payload).await;
        }
        Next::new(Arc::clone(&self.layers), Arc::clone(&self.run), payload).run(job).await
    }

    fn within(&mut self, outer: &[Arc<LayerFn>]) {
        self.layers = outer.iter().chain(&*self.layers).cloned().collect();
    }
}

/// The handlers of a worker, by kind.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: HashMap<String, Handler>,
    layers: Vec<Arc<LayerFn>>,
}

impl Handlers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles a typed kind. A payload that does not parse sends the job to the dead letters with the reason.
    ///
    /// # Panics
    /// Never; a second handler of a kind replaces the first.
    #[must_use]
    pub fn handle<K, R, F, Fut>(self, handler: F) -> Self
    where
        K: JobKind,
        R: Serialize,
        F: Fn(JobContext, K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Error>> + Send + 'static,
    {
        self.add(K::KIND.to_owned(), move |context, payload| {
            let work = parse::<K>(&payload).map(|payload| handler(context, payload));
            async move { serde_json::to_value(work?.await?).map_err(Error::internal) }
        })
    }

    /// Handles a kind whose payload and result are plain JSON.
    #[must_use]
    pub fn handle_value<F, Fut>(self, kind: impl Into<String>, handler: F) -> Self
    where
        F: Fn(JobContext, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        self.add(kind.into(), move |context, payload| {
            let work = parse::<Value>(&payload).map(|payload| handler(context, payload));
            async move { work?.await }
        })
    }

    fn add<F, Fut>(mut self, kind: String, handler: F) -> Self
    where
        F: Fn(JobContext, Arc<str>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let run: Arc<HandlerFn> = Arc::new(move |context, payload| Box::pin(handler(context, payload)));
        let layers = self.layers.iter().cloned().collect();
        self.by_kind.insert(kind, Handler { run, policy: None, limit: None, layers });
        self
    }

    /// Runs something around every attempt at the jobs of this set, whether their handlers are added before or after: the
    /// layer added first is the outermost. Handlers merged in keep their own layers, inside these.
    ///
    /// A layer sees the job's kind, attempt and context and calls [`Next::run`]. It may give the handler another context,
    /// measure, refuse by returning an error without running it, or change how it ended; what it returns decides about the
    /// job as a handler's result would. Its time is part of the attempt's, and a panic in it counts as the handler's.
    ///
    /// ```
    /// use runtime_jobs::Handlers;
    ///
    /// let handlers = Handlers::new().layer(|job, next| async move {
    ///     let (kind, attempt) = (job.kind.clone(), job.attempt);
    ///     let result = next.run(job).await;
    ///     println!("attempt {attempt} of {kind}: {}", if result.is_ok() { "done" } else { "failed" });
    ///     result
    /// });
    /// # let _ = handlers;
    /// ```
    #[must_use]
    pub fn layer<F, Fut>(mut self, layer: F) -> Self
    where
        F: Fn(JobContext, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let layer: Arc<LayerFn> = Arc::new(move |job, next| Box::pin(layer(job, next)));
        for handler in self.by_kind.values_mut() {
            // Behind those this set has, before the handler's own.
            let (outer, own) = handler.layers.split_at(self.layers.len().min(handler.layers.len()));
            handler.layers = outer.iter().chain([&layer]).chain(own).cloned().collect();
        }
        self.layers.push(layer);
        self
    }

    /// Gives a kind a retry policy of its own; others follow the worker's. Only its delays count: how often a job is
    /// tried is the job's own.
    #[must_use]
    pub fn retry(mut self, kind: &str, policy: RetryPolicy) -> Self {
        if let Some(handler) = self.by_kind.get_mut(kind) {
            handler.policy = Some(policy);
        }
        self
    }

    /// What holds for a kind's jobs that share a key; one after another unless told. The section's `limits` come first.
    #[must_use]
    pub fn limit(mut self, kind: &str, limit: Limit) -> Self {
        if let Some(handler) = self.by_kind.get_mut(kind) {
            handler.limit = Some(limit);
        }
        self
    }

    pub(crate) fn limits(&self) -> BTreeMap<String, Limit> {
        let limits = self.by_kind.iter().filter_map(|(kind, handler)| Some((kind.clone(), handler.limit?)));
        limits.collect()
    }

    /// The kinds handled.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<_> = self.by_kind.keys().cloned().collect();
        kinds.sort();
        kinds
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Handler> {
        self.by_kind.get(kind)
    }

    /// Adds all handlers of another set, with the layers it has put around them.
    pub fn merge(&mut self, other: Self) {
        let layers = &self.layers;
        self.by_kind.extend(other.by_kind.into_iter().map(|(kind, mut handler)| {
            handler.within(layers);
            (kind, handler)
        }));
    }
}

fn parse<T: DeserializeOwned>(payload: &str) -> Result<T, Error> {
    serde_json::from_str(payload).map_err(|error| {
        let message = format!("the payload does not parse: {error}");
        Error::new(ErrorKind::Invalid, "jobs.payload_unreadable", message)
    })
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handlers").field(&self.kinds()).finish()
    }
}
