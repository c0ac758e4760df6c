//! What the handle does with jobs that are tied together: flows, batches, and how they stand.

use runtime_kernel::Context;

use crate::error::JobsError;
use crate::flow::{Flow, Flowed};
use crate::job::{JobId, NewJob};
use crate::links::{Batch, BatchId, Batched, Links, MAX_PREREQUISITES, NewBatch};
use crate::queue::{Jobs, tenant};
use crate::store::{Insert, Origin};

/// Members cancelled in one transaction.
const STOPPED: u32 = 500;

impl Jobs {
    /// Enqueues a whole flow, all or none.
    ///
    /// # Errors
    /// [`JobsError::Flow`] names the job that waits for itself, for one that is not there, or in a circle; else as
    /// [`enqueue`](Self::enqueue).
    pub async fn enqueue_flow(&self, context: &Context, flow: Flow) -> Result<Flowed, JobsError> {
        let ordered = flow.in_order(|| JobId::new(&**self.clock()))?;
        let mut names = Vec::with_capacity(ordered.len());
        let mut jobs = Vec::with_capacity(ordered.len());
        for (name, id, job) in ordered {
            names.push(name);
            jobs.push((id, job));
        }
        self.mind_pressure(jobs.iter().map(|(_, job)| job)).await?;
        let (inserts, _) = self.inserts_as(context, jobs)?;
        let done = self.store().insert(inserts).await?;
        self.tell();
        Ok(names.into_iter().zip(done).collect())
    }

    /// Opens a batch with its jobs and callbacks, all or none.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_batch(&self, context: &Context, batch: NewBatch) -> Result<Batched, JobsError> {
        let id = BatchId::new(&**self.clock());
        let members = batch.jobs.len();
        let jobs = batch.jobs.into_iter().map(|job| job.in_batch(id));
        let callbacks = batch.callbacks.into_iter().map(|job| job.after_batch(id));
        let jobs: Vec<NewJob> = jobs.chain(callbacks).collect();
        self.mind_pressure(jobs.iter()).await?;
        let (inserts, origin) = self.inserts(context, jobs)?;
        let mut jobs = self.store().insert_batch(id, origin, inserts).await?;
        self.tell();
        let callbacks = jobs.split_off(members.min(jobs.len()));
        Ok(Batched { id, jobs, callbacks })
    }

    /// How a batch stands.
    ///
    /// # Errors
    /// [`JobsError::NoBatch`].
    pub async fn batch(&self, context: &Context, id: BatchId) -> Result<Batch, JobsError> {
        self.store().batch(id, tenant(context).as_deref()).await?.ok_or(JobsError::NoBatch(id))
    }

    /// Cancels what is left of a batch, which takes no more jobs from then on: what waits at once, what runs by asking. Its
    /// callbacks follow as their triggers say. Says how many were cancelled or asked. To redrive the dead ones, use
    /// [`redrive_all`](Self::redrive_all) with `Filter::batch`.
    ///
    /// Not one transaction: cancelled in between, call it again.
    ///
    /// # Errors
    /// [`JobsError::NoBatch`]; what the store brings.
    pub async fn cancel_batch(&self, context: &Context, id: BatchId) -> Result<u64, JobsError> {
        let (mut all, tenant) = (0, tenant(context));
        loop {
            let some = self.store().cancel_batch(id, tenant.as_deref(), STOPPED).await?;
            all += some;
            if some == 0 {
                self.tell();
                return Ok(all);
            }
        }
    }

    /// What a job waits for, or waited for, and which batch counts it.
    ///
    /// # Errors
    /// [`JobsError::NotFound`].
    pub async fn links(&self, context: &Context, id: JobId) -> Result<Links, JobsError> {
        self.get(context, id).await?;
        self.store().links(id).await
    }
}

/// What is wrong with how a job is tied to others.
pub(crate) fn check(job: &NewJob) -> Result<(), JobsError> {
    let problem = if job.after.len() > MAX_PREREQUISITES {
        format!(
            "a job waits for at most {MAX_PREREQUISITES} others, not {}: put them into a batch",
            job.after.len()
        )
    } else if !job.after.is_empty() && job.after_batch.is_some() {
        "a job waits for jobs (`after`) or for a batch (`after_batch`), not for both".to_owned()
    } else if job.batch.is_some() && job.batch == job.after_batch {
        "a job cannot be counted by the batch it waits for".to_owned()
    } else {
        return Ok(());
    };
    Err(JobsError::Invalid(problem))
}

/// Jobs on their way in, and who enqueues them.
pub(crate) type Made = (Vec<Insert>, Origin);
