//! Puts the named policies into an app.

use std::sync::Arc;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;

use crate::breaker::Transition;
use crate::jitter::SharedRng;
use crate::named::{Pipelines, ResilienceConfig, RetryPolicies};

/// The named retry policies of the app.
pub const RETRY_POLICIES: Token<RetryPolicies> = Token::new("resilience.retry_policies");

/// The named pipelines of the app.
pub const PIPELINES: Token<Pipelines> = Token::new("resilience.pipelines");

/// Reads the section `resilience` and provides [`RETRY_POLICIES`] and [`PIPELINES`]. What breakers do is logged.
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
        let pipelines = Pipelines::new(&config, &app.shared_clock(), &SharedRng::from_os(), told)
            .map_err(|error| fault(&error))?;
        let policies = RetryPolicies::new(config).map_err(|error| fault(&error))?;
        app.services().value(RETRY_POLICIES, Arc::new(policies));
        app.services().value(PIPELINES, Arc::new(pipelines));
        Ok(())
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
