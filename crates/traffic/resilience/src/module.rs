//! Puts the named policies into an app.

use std::sync::Arc;

use runtime_health::{Check, HealthApp, Outcome};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;
use runtime_telemetry::MetricsApp;

use crate::breaker::{BreakerState, Transition};
use crate::jitter::SharedRng;
use crate::metrics::BreakerMetrics;
use crate::named::{Pipelines, ResilienceConfig, RetryPolicies};

/// The named retry policies of the app.
pub const RETRY_POLICIES: Token<RetryPolicies> = Token::new("resilience.retry_policies");

/// The named pipelines of the app.
pub const PIPELINES: Token<Pipelines> = Token::new("resilience.pipelines");

/// Reads the section `resilience` and provides [`RETRY_POLICIES`] and [`PIPELINES`]. What breakers do is logged and
/// counted; an open one never makes the process unready.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResilienceModule;

impl Module for ResilienceModule {
    fn name(&self) -> &'static str {
        "resilience"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config = app.section::<ResilienceConfig>()?;
        let fault = |error: &dyn std::fmt::Display| SetupError::Module {
            module: "resilience",
            message: error.to_string(),
        };
        let registry = app.metrics();
        let metrics = Arc::new(BreakerMetrics::new(&registry).map_err(|error| fault(&error))?);
        let observed = Arc::clone(&metrics);
        let observe = move |transition: &Transition| {
            observed.turned(transition);
            told(transition);
        };
        let pipelines = Pipelines::new(&config, &app.shared_clock(), &SharedRng::from_os(), observe)
            .map_err(|error| fault(&error))?;
        let pipelines = Arc::new(pipelines);
        let _ = metrics.pipelines.set(Arc::clone(&pipelines));
        registry.collector(move || metrics.refresh());
        let policies = RetryPolicies::new(config).map_err(|error| fault(&error))?;
        app.services().value(RETRY_POLICIES, Arc::new(policies));
        app.health_check(Check::from_fn("breakers", breakers(&pipelines)).optional());
        app.services().value(PIPELINES, pipelines);
        Ok(())
    }
}

/// Degraded while a breaker is open; readiness does not suffer.
fn breakers(pipelines: &Arc<Pipelines>) -> impl Fn() -> std::future::Ready<Outcome> + use<> {
    let pipelines = Arc::clone(pipelines);
    move || {
        let open = pipelines.breakers().filter(|breaker| {
            matches!(breaker.state(), BreakerState::Open | BreakerState::HalfOpen | BreakerState::ForcedOpen)
        });
        let open: Vec<_> =
            open.map(|breaker| (breaker.name().to_owned(), breaker.state().as_str())).collect();
        let start = match open.len() {
            0 => Outcome::healthy(),
            1 => Outcome::degraded("a circuit breaker is open"),
            many => Outcome::degraded(format!("{many} circuit breakers are open")),
        };
        let outcome = open.into_iter().fold(start, |outcome, (name, state)| outcome.detail(name, state));
        std::future::ready(outcome)
    }
}

fn told(transition: &Transition) {
    let Transition { breaker, from, to, open_for } = transition;
    let (from, to) = (from.as_str(), to.as_str());
    if open_for.is_none() {
        tracing::info!(%breaker, from, to, "a circuit breaker changed its state");
    } else {
        tracing::warn!(%breaker, from, to, ?open_for, "a circuit breaker opened");
    }
}
