//! The port, and the handle modules hold.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{SecretError, SecretName, SecretString};

/// Somewhere secrets are kept. The feature `laws` holds what every provider keeps to.
#[async_trait]
pub trait SecretProvider: fmt::Debug + Send + Sync + 'static {
    /// The provider's name in errors.
    fn name(&self) -> &'static str;

    /// The secret's present value, `None` when it is not set here. Cancel-safe.
    ///
    /// # Errors
    /// [`SecretError::Unusable`] when it is there and broken, [`SecretError::Unavailable`] when that cannot be told.
    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError>;
}

#[async_trait]
impl<P: SecretProvider + ?Sized> SecretProvider for Arc<P> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        (**self).get(name).await
    }
}

/// The process's secrets. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Secrets(Arc<dyn SecretProvider>);

impl Secrets {
    /// Over a provider, mostly a [`CachedSecrets`](crate::CachedSecrets) of a [`ChainedSecrets`](crate::ChainedSecrets).
    pub fn new(provider: impl SecretProvider) -> Self {
        Self(Arc::new(provider))
    }

    /// The secret's present value, if it is set.
    ///
    /// # Errors
    /// [`SecretError::Name`], or what the provider reports.
    pub async fn get(&self, name: &str) -> Result<Option<SecretString>, SecretError> {
        self.0.get(&SecretName::new(name)?).await
    }

    /// The secret's present value.
    ///
    /// # Errors
    /// As [`Secrets::get`]; [`SecretError::Missing`] when it is not set.
    pub async fn require(&self, name: &str) -> Result<SecretString, SecretError> {
        let name = SecretName::new(name)?;
        self.0.get(&name).await?.ok_or(SecretError::Missing(name))
    }
}
