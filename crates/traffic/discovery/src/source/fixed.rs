//! Endpoints that do not change.

use async_trait::async_trait;

use super::{Source, Teller};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// Endpoints that do not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed(pub Vec<Endpoint>);

#[async_trait]
impl Source for Fixed {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        teller.tell(self.0.clone());
        Ok(())
    }
}

/// Endpoints in an environment variable, separated by commas: `10.0.0.1:80,[::1]:80;weight=2`. Read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env(pub String);

#[async_trait]
impl Source for Env {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        let what = || format!("the environment variable {}", self.0);
        let text =
            std::env::var(&self.0).map_err(|error| DiscoveryError::source(what(), error.to_string()))?;
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let endpoints = entries.map(Endpoint::parse).collect::<Result<_, _>>();
        teller.tell(endpoints.map_err(|error| DiscoveryError::source(what(), error.to_string()))?);
        Ok(())
    }
}
