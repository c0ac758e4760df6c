//! The handle through which a service enqueues jobs and looks at them.

use std::fmt;
use std::sync::Arc;

use runtime_kernel::{Carried, Context, SharedClock};
use tokio::sync::Notify;

use crate::config::JobsConfig;
use crate::error::JobsError;
use crate::handler::JobKind;
use crate::job::{Enqueued, Job, JobId, JobState, NewJob};
use crate::linked::{self, Made};
use crate::pressure::Gauges;
use crate::store::{Filter, Insert, JobStore, Origin, Pause, Progress, Stats};

/// The longest kind, queue or unique key, in characters.
const MAX_NAME: usize = 200;

/// Jobs, as the rest of a service sees them. Cheap to clone.
///
/// The tenant of the context decides what is visible: a job of another tenant is as good as not there. A context
/// without a tenant sees every job.
#[derive(Clone)]
pub struct Jobs {
    store: Arc<dyn JobStore>,
    clock: SharedClock,
    config: Arc<JobsConfig>,
    pub(crate) wake: Arc<Notify>,
    gauges: Arc<Gauges>,
    #[cfg(feature = "seal")]
    pub(crate) keys: Option<Arc<crate::Keyring>>,
}

impl Jobs {
    /// Jobs over a store.
    pub fn new(store: impl JobStore, config: JobsConfig, clock: SharedClock) -> Self {
        Self {
            store: Arc::new(store),
            clock,
            config: Arc::new(config),
            wake: Arc::default(),
            gauges: Arc::default(),
            #[cfg(feature = "seal")]
            keys: None,
        }
    }

    /// Seals the payload of each job enqueued through this handle, and opens those its workers run. Kind, queue, keys and
    /// results stay readable.
    #[cfg(feature = "seal")]
    #[must_use]
    pub fn sealed_with(mut self, keys: crate::Keyring) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }

    /// Enqueues a job. Once this returns, the job is durable.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] and [`JobsError::TooLarge`] for what cannot be accepted; [`JobsError::NotFound`] for a job it
    /// waits for that is not known; [`JobsError::NoBatch`] and [`JobsError::BatchOver`] for a batch that cannot count it;
    /// [`JobsError::Busy`] for a queue that is full, where that is refused; what the store brings. After a
    /// store's error the job may or may not exist: enqueue again under a unique key.
    pub async fn enqueue(&self, context: &Context, job: NewJob) -> Result<Enqueued, JobsError> {
        let mut done = self.enqueue_many(context, vec![job]).await?;
        done.pop().ok_or_else(|| JobsError::Corrupt("the store answered for no job".to_owned()))
    }

    /// Enqueues jobs, all or none.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_many(
        &self,
        context: &Context,
        jobs: Vec<NewJob>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        self.mind_pressure(jobs.iter()).await?;
        let (inserts, _) = self.inserts(context, jobs)?;
        let done = self.store.insert(inserts).await?;
        self.tell();
        Ok(done)
    }

    /// Enqueues a typed job.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue); [`JobsError::Invalid`] for a payload that is not JSON.
    pub async fn enqueue_typed<K: JobKind>(
        &self,
        context: &Context,
        payload: &K,
    ) -> Result<Enqueued, JobsError> {
        let payload = serde_json::to_value(payload).map_err(|error| JobsError::Invalid(error.to_string()))?;
        self.enqueue(context, NewJob::new(K::KIND, payload)).await
    }

    /// Enqueues a job inside a transaction of the caller's: it exists when, and only when, that commits.
    ///
    /// One round trip, unless it has a unique key. Workers are told once the transaction has been committed.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub async fn enqueue_in(
        &self,
        tx: &mut runtime_db::Tx,
        store: &crate::SqlStore,
        context: &Context,
        job: NewJob,
    ) -> Result<Enqueued, JobsError> {
        self.mind_pressure(std::iter::once(&job)).await?;
        let (inserts, _) = self.inserts(context, vec![job])?;
        let mut done = store.insert_in(tx, &inserts).await?;
        let jobs = self.clone();
        tx.on_commit(move || jobs.tell());
        done.pop().ok_or_else(|| JobsError::Corrupt("the store answered for no job".to_owned()))
    }

    /// One job with its attempts.
    ///
    /// # Errors
    /// [`JobsError::NotFound`].
    pub async fn get(&self, context: &Context, id: JobId) -> Result<Job, JobsError> {
        self.store.get(id, tenant(context).as_deref()).await?.ok_or(JobsError::NotFound(id))
    }

    /// What the attempts at a job have kept so far.
    ///
    /// # Errors
    /// [`JobsError::NotFound`].
    pub async fn progress(&self, context: &Context, id: JobId) -> Result<Progress, JobsError> {
        self.get(context, id).await?;
        self.store.progress(id).await
    }

    /// Jobs without their attempts, newest first; the tenant of the context replaces the filter's.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn list(&self, context: &Context, filter: Filter) -> Result<Vec<Job>, JobsError> {
        self.store.list(&within(context, filter)).await
    }

    /// Cancels a job: at once while it waits, cooperatively while it runs. Says where it then stands.
    ///
    /// # Errors
    /// [`JobsError::NotFound`]; [`JobsError::WrongState`] when it has finished otherwise.
    pub async fn cancel(&self, context: &Context, id: JobId) -> Result<JobState, JobsError> {
        let state = self.store.cancel(id, tenant(context).as_deref()).await?;
        if state == JobState::Cancelled {
            // Those that waited for it to end may run.
            self.tell();
        }
        Ok(state)
    }

    /// Puts a dead job back into the queue with a fresh set of attempts.
    ///
    /// # Errors
    /// [`JobsError::NotFound`]; [`JobsError::WrongState`] when it is not dead.
    pub async fn redrive(&self, context: &Context, id: JobId) -> Result<(), JobsError> {
        let filter = within(context, Filter { limit: 1, ..Filter::default() });
        if self.store.redrive(Some(id), &filter).await? == 0 {
            let job = self.get(context, id).await?;
            return Err(JobsError::WrongState { id, state: job.state.as_str(), action: "redriven" });
        }
        self.tell();
        Ok(())
    }

    /// Puts the dead jobs a filter names back into the queue, at most `filter.limit`; says how many.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn redrive_all(&self, context: &Context, filter: Filter) -> Result<u64, JobsError> {
        let count = self.store.redrive(None, &within(context, filter)).await?;
        self.tell();
        Ok(count)
    }

    /// Lets nothing more of a queue, or of one kind in it, be claimed; what runs goes on. Everywhere at once.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn pause(&self, queue: &str, kind: Option<&str>) -> Result<(), JobsError> {
        self.store.set_paused(queue, kind, true).await
    }

    /// Undoes [`pause`](Self::pause) of the same queue and kind.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn resume(&self, queue: &str, kind: Option<&str>) -> Result<(), JobsError> {
        self.store.set_paused(queue, kind, false).await?;
        self.tell();
        Ok(())
    }

    /// What is paused.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn paused(&self) -> Result<Vec<Pause>, JobsError> {
        self.store.paused().await
    }

    /// How the store stands, over all tenants.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn stats(&self) -> Result<Stats, JobsError> {
        self.store.stats(self.config.lease).await
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn JobStore> {
        &self.store
    }

    /// The limits in force.
    pub fn config(&self) -> &JobsConfig {
        &self.config
    }

    /// Wakes the workers of this process, and of others.
    pub(crate) fn tell(&self) {
        self.wake.notify_one();
        self.store.announce();
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    pub(crate) fn inserts(&self, context: &Context, jobs: Vec<NewJob>) -> Result<Made, JobsError> {
        self.inserts_as(context, jobs.into_iter().map(|job| (JobId::new(&*self.clock), job)))
    }

    pub(crate) fn inserts_as(
        &self,
        context: &Context,
        jobs: impl IntoIterator<Item = (JobId, NewJob)>,
    ) -> Result<Made, JobsError> {
        // A durable job outlives the request that enqueues it, and so that request's deadline.
        let carried = Carried { deadline: None, ..context.carry(&*self.clock) };
        let origin = Origin::of(&carried)?;
        let inserts: Result<Vec<Insert>, JobsError> = jobs
            .into_iter()
            .map(|(id, job)| {
                self.check(&job)?;
                #[cfg(feature = "seal")]
                let job = match &self.keys {
                    Some(keys) => {
                        let about = crate::seal::About { id, kind: &job.kind, tenant: &origin.tenant };
                        NewJob { payload: keys.seal(&job.payload.to_string(), &about)?, ..job }
                    }
                    None => job,
                };
                Ok(Insert { id, job, origin: origin.clone() })
            })
            .collect();
        Ok((inserts?, origin))
    }

    fn check(&self, job: &NewJob) -> Result<(), JobsError> {
        let names = [
            ("kind", Some(&job.kind)),
            ("queue", Some(&job.queue)),
            ("unique_key", job.unique_key.as_ref()),
            ("key", job.key.as_ref()),
        ];
        for (field, name) in names {
            let Some(name) = name else { continue };
            if !is_name(name) {
                let rule = format!(
                    "`{field}` must have 1 to {MAX_NAME} characters, none of them control characters"
                );
                return Err(JobsError::Invalid(rule));
            }
        }
        if !(1..=1000).contains(&job.max_attempts) {
            return Err(JobsError::Invalid("`max_attempts` must be 1 to 1000".to_owned()));
        }
        if job.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(JobsError::Invalid("`timeout` must be longer than zero".to_owned()));
        }
        if job.unique_for.is_some() && job.unique_key.is_none() {
            return Err(JobsError::Invalid("`unique_for` needs a `unique_key`".to_owned()));
        }
        if job.unique_until_started && (job.unique_key.is_none() || job.unique_for.is_some()) {
            let rule = "`unique_until_started` needs a `unique_key`, and no `unique_for`";
            return Err(JobsError::Invalid(rule.to_owned()));
        }
        linked::check(job)?;
        let limit = self.config.max_payload.as_usize();
        if longest(&job.payload) > limit {
            let size = size_of(&job.payload);
            if size > limit {
                return Err(JobsError::TooLarge { size, limit });
            }
        }
        Ok(())
    }
}

pub(crate) fn tenant(context: &Context) -> Option<String> {
    context.tenant.as_ref().map(|tenant| tenant.namespace())
}

fn is_name(text: &str) -> bool {
    // Nearly all names are told by their bytes alone.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return (1..=MAX_NAME).contains(&text.len());
    }
    text.chars().count() <= MAX_NAME && !text.chars().any(char::is_control)
}

/// How long a value may be as JSON at most, told without writing it.
fn longest(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    // A control character takes six bytes, a number at most 25, each member a comma.
    let text = |text: &str| text.len().saturating_mul(6).saturating_add(2);
    let sum = |sizes: &mut dyn Iterator<Item = usize>| sizes.fold(2, usize::saturating_add);
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 25,
        Value::String(value) => text(value),
        Value::Array(values) => sum(&mut values.iter().map(|value| longest(value).saturating_add(1))),
        Value::Object(members) => sum(&mut members
            .iter()
            .map(|(key, value)| text(key).saturating_add(longest(value)).saturating_add(2))),
    }
}

/// How long a value is as JSON.
fn size_of(value: &serde_json::Value) -> usize {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    // Neither a value nor a count can fail.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

fn within(context: &Context, filter: Filter) -> Filter {
    match tenant(context) {
        Some(tenant) => Filter { tenant: Some(tenant), ..filter },
        None => filter,
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}
