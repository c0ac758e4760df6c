//! Puts chats and embeddings into an app.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime_client::HTTP_CLIENT;
use runtime_health::{Check, HealthApp, Outcome};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::{Container, Token};
use runtime_kernel::{Classify, Context, Error, SharedClock, Source};
use runtime_limits::{QUOTAS, Quotas};
use runtime_ratelimit::{BUCKETS, Buckets, OPERATIONS, Operations};
use runtime_resilience::RETRY_POLICIES;
use runtime_telemetry::{Counter, Family, Metrics, MetricsApp, MetricsError, keys};

use crate::embedding::{HardenedEmbedding, harden_embedding};
use crate::error::ProviderError;
use crate::gate::Gate;
use crate::harden::{HardenedChat, harden_ai};
use crate::openai::{OpenAi, OpenAiConfig};
use crate::port::{ChatModel, EmbeddingModel};
use crate::section::{CheckKind, ProvidersConfig};
use crate::target::{Attempted, Target};
use crate::wire::{ChatRequest, Message};

/// The app's chats by name.
pub const CHATS: Token<Named<HardenedChat>> = Token::new("providers.chats");

/// The app's embeddings by name.
pub const EMBEDDINGS: Token<Named<HardenedEmbedding>> = Token::new("providers.embeddings");

/// The models themselves, for the health checks.
const MODELS: Token<Named<OpenAi>> = Token::new("providers.models");

/// Things by the name the configuration gives them.
#[derive(Debug)]
pub struct Named<T>(&'static str, BTreeMap<String, T>);

impl<T> Named<T> {
    /// The one of that name.
    ///
    /// # Errors
    /// [`ProviderError::UnknownName`] lists the names there are.
    pub fn get(&self, name: &str) -> Result<&T, ProviderError> {
        self.1.get(name).ok_or_else(|| {
            let known = self.1.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            ProviderError::UnknownName { table: self.0, name: name.to_owned(), known }
        })
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.1.keys().map(String::as_str)
    }
}

impl Section for ProvidersConfig {
    const PATH: &'static str = "providers";

    fn validate(&self) -> Result<(), Invalid> {
        self.check().map_err(|(key, message)| Invalid::new(key, message))
    }
}

/// Reads the section `providers` and provides [`CHATS`] and [`EMBEDDINGS`]: behind the app's client, within the rates of
/// its operations and, where a chat names one, the tenants' quota. Every model that is used has an optional health check; attempts, tokens and
/// costs are counted. Without chats and embeddings it needs no other module.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProvidersModule;

impl Module for ProvidersModule {
    fn name(&self) -> &'static str {
        "providers"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: ProvidersConfig = app.section()?;
        let numbers = Numbers::new(&app.metrics())
            .map_err(|error| SetupError::Module { module: "providers", message: error.to_string() })?;
        let clock = app.shared_clock();
        checks(app, &config);
        if config.chats.is_empty() && config.embeddings.is_empty() {
            app.services().value(CHATS, Arc::new(Named("chats", BTreeMap::new())));
            app.services().value(EMBEDDINGS, Arc::new(Named("embeddings", BTreeMap::new())));
            return Ok(());
        }
        let own = (config.clone(), clock.clone());
        app.services().singleton(MODELS, (HTTP_CLIENT,), move |(client,)| {
            let (config, clock) = &own;
            let models = config.targets.iter().map(|(name, target)| {
                let mut place = OpenAiConfig::new(&target.url, &target.model);
                place.key.clone_from(&target.api_key);
                (name.clone(), OpenAi::new((*client).clone(), place, clock.clone()))
            });
            std::future::ready(Ok::<_, Error>(Arc::new(Named("targets", models.collect()))))
        });
        let chats =
            Arc::new(Wanted { config: config.clone(), clock: clock.clone(), numbers: numbers.clone() });
        let parts = (MODELS, BUCKETS, OPERATIONS);
        if config.chats.values().any(|chat| chat.calls.quota.is_some()) {
            let parts = (MODELS, BUCKETS, OPERATIONS, QUOTAS);
            app.services().singleton(CHATS, parts, move |(models, buckets, operations, quotas)| {
                std::future::ready(chats.build(&models, &buckets, &operations, Some(&quotas)))
            });
        } else {
            app.services().singleton(CHATS, parts, move |(models, buckets, operations)| {
                std::future::ready(chats.build(&models, &buckets, &operations, None))
            });
        }
        // Built before the first request, so that what is wrong with them stops the start.
        app.on_start("providers", |container| async move {
            container.get(CHATS).await?;
            container.get(EMBEDDINGS).await.map(drop)
        });
        app.services().singleton(
            EMBEDDINGS,
            (MODELS, BUCKETS, OPERATIONS, RETRY_POLICIES),
            move |(models, buckets, operations, policies)| {
                let embedding = |name: &String, own: &crate::EmbeddingConfig| {
                    let model = Arc::new(models.get(&own.target)?.clone()) as Arc<dyn EmbeddingModel>;
                    let target = Target::new(own.target.as_str(), model, limits(&config, &own.target));
                    let policy = policies.get(&own.retry)?.clone();
                    let gate =
                        Gate::new(Arc::clone(&buckets), Arc::clone(&operations), &config.embedding_operation);
                    let made = harden_embedding(
                        numbers.watch(target.buckets(Arc::clone(&buckets))),
                        policy,
                        own.batch,
                        clock.clone(),
                    )?;
                    Ok((name.clone(), made.gate(gate)))
                };
                let all = config.embeddings.iter().map(|(name, own)| embedding(name, own));
                let all = all.collect::<Result<_, Error>>();
                std::future::ready(all.map(|all| Arc::new(Named("embeddings", all))))
            },
        );
        Ok(())
    }
}

/// What the chats are made of, besides what is in the container.
struct Wanted {
    config: ProvidersConfig,
    clock: SharedClock,
    numbers: Numbers,
}

impl Wanted {
    fn build(
        &self,
        models: &Named<OpenAi>,
        buckets: &Arc<dyn Buckets>,
        operations: &Arc<Operations>,
        quotas: Option<&Quotas>,
    ) -> Result<Arc<Named<HardenedChat>>, Error> {
        // One target for all chats that call it: they share its limits.
        let targets = models.1.iter().map(|(name, model)| {
            let model = Arc::new(model.clone()) as Arc<dyn ChatModel>;
            let target = Target::new(name.as_str(), model, limits(&self.config, name));
            (name.clone(), self.numbers.watch(target.buckets(Arc::clone(buckets))))
        });
        let targets = Named("targets", targets.collect());
        let mut chats = BTreeMap::new();
        for (name, chat) in &self.config.chats {
            let own = chat.targets().into_iter().map(|target| targets.get(target).cloned());
            let own = own.collect::<Result<Vec<_>, _>>()?;
            let gate = Gate::new(Arc::clone(buckets), Arc::clone(operations), &self.config.chat_operation);
            let made = harden_ai(own, &chat.chains, chat.calls.clone(), Arc::clone(&self.clock))?;
            let made = made.gate(gate)?;
            let made = match quotas {
                Some(quotas) => made.quotas(quotas.clone())?,
                None => made,
            };
            chats.insert(name.clone(), made);
        }
        Ok(Arc::new(Named("chats", chats)))
    }
}

fn limits(config: &ProvidersConfig, target: &str) -> crate::TargetConfig {
    config.targets.get(target).map(|target| target.limits).unwrap_or_default()
}

/// One check for every model that is used. They are optional: what a service does without its models is its own affair.
fn checks(app: &mut App, config: &ProvidersConfig) {
    let mut of_chats: Vec<_> = config.chats.values().flat_map(crate::ChatConfig::targets).collect();
    of_chats.sort_unstable();
    of_chats.dedup();
    let of_chats = of_chats.into_iter().map(|target| ("ai_provider", target, target, config.chat_check));
    let of_embeddings = config.embeddings.iter().map(|(name, own)| {
        ("embedding_provider", name.as_str(), own.target.as_str(), config.embedding_check)
    });
    let clock = app.shared_clock();
    for (group, name, target, kind) in of_chats.chain(of_embeddings) {
        let settings = |check: Check| check.optional().interval(EVERY).timeout(PATIENCE);
        let (target, clock) = (target.to_owned(), clock.clone());
        app.health_check_with(format!("{group}.{name}"), settings, move |services| {
            let (target, clock) = (target.clone(), clock.clone());
            async move { Outcome::from(ask(&services, &target, kind, &clock).await) }
        });
    }
}

/// Providers are asked less often than what is ours, and answer more slowly.
const EVERY: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_secs(15);

async fn ask(services: &Container, target: &str, kind: CheckKind, clock: &SharedClock) -> Result<(), Error> {
    let models = services.get(MODELS).await?;
    let model = models.get(target)?;
    let context = Context::new(Source::Internal, &**clock);
    let answer = match kind {
        CheckKind::Ping => model.ping(&context, target).await,
        CheckKind::Generate => {
            let request = ChatRequest::new([Message::user("health_check")], 1);
            model.complete(&context, target, &request).await.map(drop)
        }
        CheckKind::Embed => match model.embed(&context, target, &["health_check".to_owned()]).await {
            Ok((found, _)) if found.vectors.first().is_none_or(Vec::is_empty) => {
                let why = "its answer has no vector".to_owned();
                Err(ProviderError::Lost { target: target.to_owned(), why })
            }
            answer => answer.map(drop),
        },
    };
    answer.map_err(|error| match &error {
        // Operators may know why.
        ProviderError::Failed { why, .. } | ProviderError::Lost { why, .. } => {
            let message = format!("{error}: {why}");
            Error::new(error.kind(), error.code().to_owned(), message)
        }
        _ => error.into(),
    })
}

/// What is counted of every attempt.
#[derive(Clone)]
struct Numbers {
    attempts: Family<Counter>,
    tokens: Family<Counter>,
    cost: Family<Counter>,
}

impl Numbers {
    fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let attempts = "Attempts at providers, by target and outcome.";
        let tokens = "Tokens used at providers, by target and kind.";
        let cost = "What was spent at providers, in millionths of a dollar.";
        Ok(Self {
            attempts: metrics.counter(keys::PROVIDERS_ATTEMPTS_TOTAL, attempts)?,
            tokens: metrics.counter(keys::PROVIDERS_TOKENS_TOTAL, tokens)?,
            cost: metrics.counter(keys::PROVIDERS_COST_MICROS_TOTAL, cost)?,
        })
    }

    fn watch<M: ?Sized>(&self, target: Target<M>) -> Target<M> {
        let numbers = self.clone();
        target.observed(move |attempted: &Attempted<'_>| {
            let Attempted { target, outcome, usage, cost } = *attempted;
            numbers.attempts.with(&[("target", target), ("outcome", outcome)]).inc();
            let tokens =
                |kind, n: u32| numbers.tokens.with(&[("target", target), ("kind", kind)]).add(n.into());
            tokens("prompt", usage.prompt);
            tokens("completion", usage.completion);
            numbers.cost.with(&[("target", target)]).add(cost.micros());
        })
    }
}
