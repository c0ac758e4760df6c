//! One model at one provider, with its limits and how it fares.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use runtime_kernel::{Classify, SharedClock, Ticks};
use runtime_ratelimit::{Buckets, Demand, LimitError, Rate, RateLimiter, Reserved};
use serde::{Deserialize, Serialize};

use crate::cost::{Cost, Price};
use crate::error::ProviderError;
use crate::port::{ChatModel, Told};
use crate::wire::Usage;

/// What is known of a target beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TargetConfig {
    /// How many requests a minute it takes; 0, as by default, for any number.
    pub requests_per_minute: u32,
    /// How many tokens a minute, those of question and answer together; 0, as by default, for any number.
    pub tokens_per_minute: u32,
    /// What tokens cost. Nothing by default.
    pub price: Price,
    /// After how many failures in a row it is left alone. Default 3.
    pub allowed_failures: u32,
    /// For how long, unless it says so itself. Default 30 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub cooldown: Duration,
    /// The longest time it is left alone, whatever it says. Default 5 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_cooldown: Duration,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            requests_per_minute: 0,
            tokens_per_minute: 0,
            price: Price::default(),
            allowed_failures: 3,
            cooldown: Duration::from_secs(30),
            max_cooldown: Duration::from_mins(5),
        }
    }
}

/// One model at one provider. Clones share its limits and its cooldown: it is the same model.
pub struct Target<M: ?Sized = dyn ChatModel> {
    pub(crate) name: Arc<str>,
    pub(crate) model: Arc<M>,
    pub(crate) config: TargetConfig,
    observer: Option<Observer>,
    buckets: Option<Arc<dyn Buckets>>,
    /// Made when it is first put behind a chat, with that chat's clock.
    state: Arc<OnceLock<Arc<State>>>,
}

type Observer = Arc<dyn Fn(&Attempted<'_>) + Send + Sync>;

/// How one attempt at a target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempted<'a> {
    /// The target's name.
    pub target: &'a str,
    /// `answered`, or the code of the error.
    pub outcome: &'a str,
    /// The tokens that were used, also by a stream that broke off.
    pub usage: Usage,
    /// What they cost.
    pub cost: Cost,
}

impl<M: ?Sized> Clone for Target<M> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            model: Arc::clone(&self.model),
            config: self.config,
            observer: self.observer.clone(),
            buckets: self.buckets.clone(),
            state: Arc::clone(&self.state),
        }
    }
}

impl<M: ?Sized> fmt::Debug for Target<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<M: ?Sized> Target<M> {
    /// A model by the name it has in errors, limits and answers.
    pub fn new(name: impl Into<Arc<str>>, model: Arc<M>, config: TargetConfig) -> Self {
        Self { name: name.into(), model, config, observer: None, buckets: None, state: Arc::default() }
    }

    /// Keeps its limits in these buckets, which other processes may share, instead of its own memory.
    #[must_use]
    pub fn buckets(mut self, buckets: Arc<dyn Buckets>) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// Calls `observer` once after each attempt, unless it was dropped.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(&Attempted<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }
}

/// A target with what is learnt of it.
pub(crate) struct Live<M: ?Sized> {
    pub(crate) target: Target<M>,
    state: Arc<State>,
}

struct State {
    buckets: Arc<dyn Buckets>,
    ticks: Ticks,
    requests: Option<(String, Rate)>,
    tokens: Option<(String, Rate)>,
    failures: AtomicU32,
    cool_until: AtomicU64,
}

/// What the head of an answer says of limits, and when it came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    told: Told,
    at: u64,
}

/// The room a call was given; settled when it is known what it used.
#[derive(Debug)]
pub(crate) struct Room {
    tokens: Option<Reserved>,
    request: Option<Reserved>,
}

impl Room {
    /// The call was made, and used so many tokens.
    pub(crate) async fn used(self, tokens: u32) {
        settle(self.tokens, tokens).await;
    }

    /// The call was never made.
    pub(crate) async fn unused(self) {
        settle(self.tokens, 0).await;
        settle(self.request, 0).await;
    }
}

async fn settle(reserved: Option<Reserved>, used: u32) {
    if let Some(reserved) = reserved
        && let Err(error) = reserved.settle(used).await
    {
        tracing::warn!(error = %error, "what a call did not use could not be given back");
    }
}

impl<M: ?Sized> Live<M> {
    pub(crate) fn new(target: Target<M>, clock: &SharedClock) -> Result<Self, ProviderError> {
        let rate = |key: &str, per_minute: u32| {
            let rate = (per_minute > 0).then(|| Rate::per_minute(per_minute)).transpose();
            let rate = rate.map_err(|error| ProviderError::Config {
                key: format!("{}.{key}", target.name),
                message: error.to_string(),
            })?;
            Ok::<_, ProviderError>(rate.map(|rate| (format!("provider:{}:{key}", target.name), rate)))
        };
        let requests = rate("requests_per_minute", target.config.requests_per_minute)?;
        let tokens = rate("tokens_per_minute", target.config.tokens_per_minute)?;
        let made = || State {
            // Two keys; the rest is room.
            buckets: target.buckets.clone().unwrap_or_else(|| {
                Arc::new(RateLimiter::builder(16).clock(Arc::clone(clock)).build()) as Arc<dyn Buckets>
            }),
            ticks: Ticks::of(Arc::clone(clock)),
            requests,
            tokens,
            failures: AtomicU32::new(0),
            cool_until: AtomicU64::new(0),
        };
        let state = Arc::clone(target.state.get_or_init(|| Arc::new(made())));
        Ok(Self { target, state })
    }

    /// How long it is left alone yet.
    pub(crate) fn cooling(&self) -> Option<Duration> {
        let left = self.state.cool_until.load(Ordering::Relaxed).saturating_sub(self.state.ticks.now());
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Room for a call of so many tokens: one request and the tokens, both or none.
    pub(crate) async fn reserve(&self, tokens: u32) -> Result<Room, ProviderError> {
        let state = &*self.state;
        let refused = |error: LimitError| ProviderError::Limited {
            target: self.target.name.to_string(),
            tokens,
            retry_after: error.retry_after(),
        };
        let mut room = Room { tokens: None, request: None };
        if let Some((key, rate)) = &state.tokens {
            let demand = Demand::new(key, *rate).cost(tokens);
            room.tokens = Some(state.buckets.reserve(demand).await.map_err(refused)?);
        }
        if let Some((key, rate)) = &state.requests {
            match state.buckets.reserve(Demand::new(key, *rate)).await {
                Ok(request) => room.request = Some(request),
                Err(error) => {
                    room.unused().await;
                    return Err(refused(error));
                }
            }
        }
        Ok(room)
    }

    /// What the head of an answer says, which has just come.
    pub(crate) fn heard(&self, told: Told) -> Head {
        Head { told, at: self.state.ticks.now() }
    }

    /// The provider counts itself: where it has less left than we believe, it is right. What has come back since its head
    /// came is not less.
    pub(crate) async fn told(&self, Head { told, at }: Head) {
        let state = &*self.state;
        let since = u128::from(state.ticks.now().saturating_sub(at));
        for (limit, left) in [(&state.requests, told.requests), (&state.tokens, told.tokens)] {
            let (Some((key, rate)), Some(left)) = (limit, left) else { continue };
            let back = u32::try_from(since / rate.interval().as_nanos().max(1)).unwrap_or(u32::MAX);
            let demand = Demand::new(key, *rate);
            let Ok(standing) = state.buckets.peek(demand).await else { continue };
            let beyond = standing.remaining().saturating_sub(left.saturating_add(back));
            if beyond > 0 {
                // Refused, others have taken them meanwhile, which is as good.
                let _ = state.buckets.take(&[demand.cost(beyond)]).await;
            }
        }
    }

    /// It has answered to the end, and this is what was used.
    pub(crate) fn answered(&self, usage: Usage) {
        self.state.failures.store(0, Ordering::Relaxed);
        self.tell("answered", usage);
    }

    fn tell(&self, outcome: &str, usage: Usage) {
        if let Some(observer) = &self.target.observer {
            let cost = self.target.config.price.of(usage);
            observer(&Attempted { target: &self.target.name, outcome, usage, cost });
        }
    }

    /// It has failed, and this is what was used all the same.
    pub(crate) fn failed(&self, error: &ProviderError, usage: Usage) {
        self.tell(error.code(), usage);
        let why = match error {
            ProviderError::Failed { why, .. } | ProviderError::Lost { why, .. } => why.as_str(),
            _ => "",
        };
        tracing::warn!(target_name = %self.target.name, error = %error, why, "an attempt at a provider failed");
        let config = &self.target.config;
        let Some((time, at_once)) = error.cools(config.cooldown) else { return };
        let failures = self.state.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if at_once || failures >= config.allowed_failures {
            self.state.failures.store(0, Ordering::Relaxed);
            let nanos = u64::try_from(time.min(config.max_cooldown).as_nanos()).unwrap_or(u64::MAX >> 1);
            self.state.cool_until.fetch_max(self.state.ticks.now().saturating_add(nanos), Ordering::Relaxed);
        }
    }
}
