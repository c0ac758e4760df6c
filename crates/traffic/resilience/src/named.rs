//! Policies and pipelines by name, from configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_kernel::{Classify, Error, ErrorKind, SharedClock};
use serde::{Deserialize, Serialize};

use crate::breaker::{BreakerConfig, CircuitBreaker, Transition};
use crate::budget::BudgetConfig;
use crate::bulkhead::{Bulkhead, BulkheadConfig};
use crate::config::{PolicyError, RetryConfig};
use crate::hedge::HedgeConfig;
use crate::jitter::SharedRng;
use crate::pipeline::Pipeline;
use crate::policy::RetryPolicy;

/// The section `resilience`: retry policies and pipelines by name.
///
/// The policies `default`, `expensive`, `quick`, `conservative` and `aws` exist unless redefined; others may be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResilienceConfig {
    /// Whether anything is tried again. Default true; off, every policy makes one attempt and no pipeline hedges.
    pub retries: bool,
    /// The retry policies.
    pub retry: BTreeMap<String, RetryConfig>,
    /// The pipelines: one per dependency.
    pub pipeline: BTreeMap<String, PipelineConfig>,
}

/// What guards the calls to one dependency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PipelineConfig {
    /// How long everything together may take. No limit by default but the caller's.
    #[serde(with = "runtime_kernel::units::duration_option", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The name of the retry policy. None by default: one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// When to ask again although an attempt is under way. Never by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeConfig>,
    /// When to stop calling. Never by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerConfig>,
    /// How many calls may be under way. No limit by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulkhead: Option<BulkheadConfig>,
}

impl PipelineConfig {
    fn check(&self, retry: &BTreeMap<String, RetryConfig>) -> Result<(), (String, String)> {
        let at = |part: &'static str| {
            move |error: PolicyError| (format!("{part}.{}", error.key), error.message.to_owned())
        };
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(("timeout".to_owned(), "must not be 0: leave it out for no limit".to_owned()));
        }
        let known =
            |name: &String| retry.contains_key(name) || well_known().iter().any(|(own, _)| own == name);
        if let Some(name) = self.retry.as_ref().filter(|name| !known(name)) {
            return Err(("retry".to_owned(), format!("names no retry policy: `{name}`")));
        }
        self.hedge.map_or(Ok(()), HedgeConfig::check).map_err(at("hedge"))?;
        self.breaker.as_ref().map_or(Ok(()), BreakerConfig::check).map_err(at("breaker"))?;
        self.bulkhead.map_or(Ok(()), BulkheadConfig::check).map_err(at("bulkhead"))
    }
}

/// Pipelines by name, each with its own breaker, bulkhead and budget for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Pipelines {
    named: BTreeMap<String, (Pipeline, Option<CircuitBreaker>)>,
}

impl Pipelines {
    /// The configured pipelines, whose breakers' transitions somebody is told.
    ///
    /// # Errors
    /// [`Error`] of kind `Invalid` names the key that is wrong.
    pub fn new(
        config: &ResilienceConfig,
        clock: &SharedClock,
        rng: &SharedRng,
        observe: impl Fn(&Transition) + Send + Sync + Clone + 'static,
    ) -> Result<Self, Error> {
        config.check().map_err(|(key, message)| {
            Error::new(ErrorKind::Invalid, "resilience.invalid_config", format!("`{key}` {message}"))
        })?;
        let policies = RetryPolicies::new(config.clone())?;
        let mut named = BTreeMap::new();
        let retries = config.retries;
        for (name, config) in &config.pipeline {
            let mut pipeline = Pipeline::new().on(clock.clone(), rng.clone());
            if let Some(timeout) = config.timeout {
                pipeline = pipeline.timeout(timeout);
            }
            if let Some(policy) = &config.retry {
                let policy = policies.get(policy)?.clone();
                // A budget of its own: how one dependency fares says nothing about another.
                let budget = policy.config().budget;
                pipeline = pipeline.retry(policy.with_budget(budget)?);
            }
            if let Some(hedge) = config.hedge.filter(|_| retries) {
                pipeline = pipeline.hedge(hedge)?;
            }
            if let Some(bulkhead) = config.bulkhead {
                pipeline = pipeline.bulkhead(Bulkhead::new(bulkhead)?);
            }
            let breaker = match &config.breaker {
                Some(config) => Some(CircuitBreaker::with(
                    name.as_str(),
                    config.clone(),
                    clock.clone(),
                    rng.clone(),
                    observe.clone(),
                )?),
                None => None,
            };
            if let Some(breaker) = &breaker {
                pipeline = pipeline.breaker(breaker.clone());
            }
            named.insert(name.clone(), (pipeline, breaker));
        }
        Ok(Self { named })
    }

    /// The pipeline of that name; nothing when it is not configured.
    pub fn get(&self, name: &str) -> Option<&Pipeline> {
        self.named.get(name).map(|(pipeline, _)| pipeline)
    }

    /// The breakers there are, by the name of their pipeline.
    pub fn breakers(&self) -> impl Iterator<Item = &CircuitBreaker> {
        self.named.values().filter_map(|(_, breaker)| breaker.as_ref())
    }

    /// The breaker of the pipeline of that name.
    pub fn breaker(&self, name: &str) -> Option<&CircuitBreaker> {
        self.named.get(name).and_then(|(_, breaker)| breaker.as_ref())
    }
}

impl ResilienceConfig {
    /// The key that is wrong, below the section, and what it must be.
    fn check(&self) -> Result<(), (String, String)> {
        for (name, config) in &self.retry {
            let at = |error: PolicyError| (format!("retry.{name}.{}", error.key), error.message.to_owned());
            config.check().map_err(at)?;
        }
        for (name, config) in &self.pipeline {
            config
                .check(&self.retry)
                .map_err(|(key, message)| (format!("pipeline.{name}.{key}"), message))?;
        }
        Ok(())
    }
}

impl Default for ResilienceConfig {
    fn default() -> Self {
        let retry = well_known().into_iter().map(|(name, config)| (name.to_owned(), config)).collect();
        Self { retries: true, retry, pipeline: BTreeMap::new() }
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for ResilienceConfig {
    const PATH: &'static str = "resilience";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.check().map_err(|(key, message)| runtime_kernel::config::Invalid::new(key, message))
    }
}

/// Retry policies by name.
///
/// ```
/// use runtime_resilience::RetryPolicies;
///
/// let policies = RetryPolicies::default();
/// assert_eq!(policies.get("expensive").map(|policy| policy.max_attempts()), Ok(5));
/// assert_eq!(
///     policies.get("expansive").map_err(|error| error.to_string()),
///     Err("no retry policy `expansive`; there are aws, conservative, default, expensive, quick".to_owned()),
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicies {
    named: BTreeMap<String, RetryPolicy>,
}

/// A policy was asked for that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no retry policy `{name}`; there are {known}")]
pub struct UnknownPolicy {
    name: String,
    known: String,
}

impl Classify for UnknownPolicy {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        "retry.unknown_policy"
    }
}

runtime_kernel::into_error!(UnknownPolicy);

impl Default for RetryPolicies {
    fn default() -> Self {
        let named = well_known()
            .into_iter()
            .filter_map(|(name, config)| Some((name.to_owned(), RetryPolicy::new(config).ok()?)));
        Self { named: named.collect() }
    }
}

impl RetryPolicies {
    /// The configured policies beside the well-known ones.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(config: ResilienceConfig) -> Result<Self, PolicyError> {
        let mut policies = Self::default();
        for (name, config) in config.retry {
            policies.named.insert(name, RetryPolicy::new(config)?);
        }
        if !config.retries {
            policies.named.values_mut().for_each(|policy| *policy = policy.once());
        }
        Ok(policies)
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// [`UnknownPolicy`] lists the names there are.
    pub fn get(&self, name: &str) -> Result<&RetryPolicy, UnknownPolicy> {
        self.named.get(name).ok_or_else(|| UnknownPolicy {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }
}

fn well_known() -> [(&'static str, RetryConfig); 5] {
    let policy = |max_attempts, base_ms, max_secs, factor| RetryConfig {
        max_attempts,
        base_delay: Duration::from_millis(base_ms),
        max_delay: Duration::from_secs(max_secs),
        factor,
        ..RetryConfig::default()
    };
    [
        ("default", policy(3, 500, 5, 2.0)),
        ("expensive", policy(5, 1_000, 10, 2.0)),
        ("quick", policy(2, 100, 1, 2.0)),
        ("conservative", policy(3, 2_000, 30, 3.0)),
        ("aws", aws()),
    ]
}

/// The constants of the AWS SDKs' standard retries of 2026: a purse of 500 tokens, 14 for a transient failure and 5 after
/// throttling, which waits from 1 s instead of 50 ms; a `Retry-After` counts up to 5 s beyond the own delay.
fn aws() -> RetryConfig {
    RetryConfig {
        max_attempts: 3,
        base_delay: Duration::from_millis(50),
        throttle_base_delay: Some(Duration::from_secs(1)),
        max_delay: Duration::from_secs(20),
        retry_after_slack: Some(Duration::from_secs(5)),
        budget: Some(BudgetConfig::Tokens { capacity: 500, cost: 14, throttled_cost: 5 }),
        ..RetryConfig::default()
    }
}
