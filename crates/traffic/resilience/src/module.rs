//! Puts the named policies into an app.

use std::sync::Arc;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;

use crate::named::{ResilienceConfig, RetryPolicies};

/// The named retry policies of the app.
pub const RETRY_POLICIES: Token<RetryPolicies> = Token::new("resilience.retry_policies");

/// Reads the section `resilience` and provides [`RETRY_POLICIES`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ResilienceModule;

impl Module for ResilienceModule {
    fn name(&self) -> &'static str {
        "resilience"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config = app.section::<ResilienceConfig>()?;
        let policies = RetryPolicies::new(config)
            .map_err(|error| SetupError::Module { module: "resilience", message: error.to_string() })?;
        app.services().value(RETRY_POLICIES, Arc::new(policies));
        Ok(())
    }
}
