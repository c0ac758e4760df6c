//! Several providers, asked one after another.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{SecretError, SecretName, SecretProvider, SecretString};

/// The first provider that has the secret gives it. One that fails ends the search: an older value further down
/// must not stand in for one that could not be read.
#[derive(Clone, Debug, Default)]
pub struct ChainedSecrets(Vec<Arc<dyn SecretProvider>>);

impl ChainedSecrets {
    /// An empty chain, in which nothing is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a provider that is asked after those already there.
    #[must_use]
    pub fn then(mut self, provider: impl SecretProvider) -> Self {
        self.0.push(Arc::new(provider));
        self
    }
}

#[async_trait]
impl SecretProvider for ChainedSecrets {
    fn name(&self) -> &'static str {
        "a chain of providers"
    }

    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        for provider in &self.0 {
            if let Some(secret) = provider.get(name).await? {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }
}
