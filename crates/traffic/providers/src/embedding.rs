//! An embedding model that holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Context, Deadline, SharedClock};
use runtime_resilience::{Cause, RetryConfig, RetryPolicy, SharedRng, retry};

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
    attempt_timeout: Option<Duration>,
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

/// Puts limits, retries under a policy and batches of at most so many texts around an embedding model. The policy's
/// `attempt_timeout` begins when there is room for the attempt.
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
        attempt_timeout: policy.attempt_timeout(),
        policy: untimed(policy)?,
        batch,
        clock,
        rng: SharedRng::from_os(),
        meter: Arc::default(),
        gate: None,
    })
}

/// The loop would only drop an attempt that takes too long; told of it, the target cools down.
fn untimed(policy: RetryPolicy) -> Result<RetryPolicy, ProviderError> {
    let budget = policy.budget().cloned();
    let mut config = RetryConfig::from(policy);
    config.attempt_timeout = None;
    let policy = RetryPolicy::new(config)
        .map_err(|error| ProviderError::Config { key: "policy".to_owned(), message: error.to_string() })?;
    Ok(match budget {
        Some(budget) => policy.sharing(budget),
        None => policy,
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
        let (name, clock) = (&*self.live.target.name, &*self.clock);
        let own = self.attempt_timeout.map_or(Deadline::NONE, |own| Deadline::after(clock, own));
        let work = self.live.target.model.embed(context, name, texts);
        let answer = own.narrow(context.deadline).run(clock, work).await;
        let answer = answer.unwrap_or_else(|_| match self.attempt_timeout {
            Some(after) if !context.deadline.is_expired(clock) => {
                Err(ProviderError::TimedOut { target: name.to_owned(), after })
            }
            _ => Err(ProviderError::Deadline),
        });
        match answer {
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
