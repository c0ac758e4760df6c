//! An embedding model that holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Context, SharedClock};
use runtime_resilience::{Cause, RetryPolicy, SharedRng, retry};

use crate::error::ProviderError;
use crate::gate::Gate;
use crate::meter::{Meter, Spent};
use crate::port::EmbeddingModel;
use crate::target::{Live, Target};
use crate::wire::{Embeddings, Usage, estimate};

/// An embedding model with its limits, retries and batches. It has one target: vectors of two models cannot be compared.
#[derive(Clone)]
pub struct HardenedEmbedding {
    live: Arc<Live<dyn EmbeddingModel>>,
    policy: RetryPolicy,
    batch: usize,
    clock: SharedClock,
    rng: SharedRng,
    meter: Arc<Meter>,
    gate: Option<Gate>,
}

impl fmt::Debug for HardenedEmbedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HardenedEmbedding").field("target", &self.live.target).finish_non_exhaustive()
    }
}

/// Puts limits, retries under a policy and batches of at most so many texts around an embedding model.
///
/// # Errors
/// [`ProviderError::Config`] names what is wrong.
pub fn harden_embedding(
    target: Target<dyn EmbeddingModel>,
    policy: RetryPolicy,
    batch: usize,
    clock: SharedClock,
) -> Result<HardenedEmbedding, ProviderError> {
    if batch == 0 {
        let message = "must be more than 0".to_owned();
        return Err(ProviderError::Config { key: "batch".to_owned(), message });
    }
    Ok(HardenedEmbedding {
        live: Arc::new(Live::new(target, &clock)?),
        policy,
        batch,
        clock,
        rng: SharedRng::from_os(),
        meter: Arc::default(),
        gate: None,
    })
}

impl HardenedEmbedding {
    /// What a tenant has spent in this process, by `realm/tenant`; the empty name is for calls without one.
    pub fn spent(&self, tenant: &str) -> Spent {
        self.meter.of(tenant)
    }

    /// The same within the rate of an operation, by who asks.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// A vector for each text, in their order. All or nothing: of several batches one that fails for good fails all.
    ///
    /// Cancel-safe: dropped, the call is given up.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn embed(&self, context: &Context, texts: &[String]) -> Result<Embeddings, ProviderError> {
        if let Some(gate) = &self.gate {
            gate.pass(context).await?;
        }
        let mut all = Embeddings::default();
        for texts in texts.chunks(self.batch) {
            let mut rng = self.rng.clone();
            let one =
                retry(&self.policy, &*self.clock, context, &mut rng, |_| self.one(context, texts)).await;
            let one = one.map_err(|error| match error.into_last() {
                Cause::Failed(error) => error,
                Cause::TimedOut(after) => {
                    ProviderError::TimedOut { target: self.live.target.name.to_string(), after }
                }
                Cause::Deadline => ProviderError::Deadline,
            })?;
            all.vectors.extend(one.vectors);
            all.usage = Usage {
                prompt: all.usage.prompt.saturating_add(one.usage.prompt),
                completion: all.usage.completion.saturating_add(one.usage.completion),
            };
        }
        Ok(all)
    }

    async fn one(&self, context: &Context, texts: &[String]) -> Result<Embeddings, ProviderError> {
        let tokens = estimate(texts);
        if let Some(retry_after) = self.live.cooling() {
            return Err(ProviderError::AllCooling { retry_after });
        }
        let room = loop {
            match self.live.reserve(tokens).await {
                Ok(room) => break room,
                Err(ProviderError::Limited { retry_after: Some(wait), .. })
                    if context.deadline.remaining(&*self.clock).is_none_or(|left| wait < left) =>
                {
                    self.clock.sleep(wait.max(Duration::from_millis(1))).await;
                }
                Err(error) => return Err(error),
            }
        };
        let name = &*self.live.target.name;
        match self.live.target.model.embed(context, name, texts).await {
            Ok((found, told)) => {
                let head = self.live.heard(told);
                self.meter.add(context.tenant.as_deref(), found.usage, self.live.target.config.price);
                self.live.answered(found.usage);
                room.used(found.usage.total()).await;
                self.live.told(head).await;
                Ok(found)
            }
            Err(error) => {
                self.live.failed(&error, Usage::default());
                // What has been refused used nothing; what is not known counts.
                if !error.may_have_cost() {
                    room.used(0).await;
                }
                Err(error)
            }
        }
    }
}
