#![doc = include_str!("../README.md")]

#[cfg(feature = "providers")]
mod cache;
#[cfg(feature = "providers")]
mod chain;
#[cfg(feature = "providers")]
mod directory;
#[cfg(feature = "providers")]
mod env;
mod error;
#[cfg(feature = "laws")]
pub mod laws;
#[cfg(feature = "module")]
mod module;
mod name;
#[cfg(feature = "providers")]
mod provider;
mod secret;

#[cfg(feature = "providers")]
pub use cache::CachedSecrets;
#[cfg(feature = "providers")]
pub use chain::ChainedSecrets;
#[cfg(feature = "providers")]
pub use directory::DirectorySecrets;
#[cfg(feature = "providers")]
pub use env::EnvSecrets;
pub use error::SecretError;
#[cfg(feature = "module")]
pub use module::{SECRETS, SecretsConfig, SecretsModule};
pub use name::SecretName;
#[cfg(feature = "providers")]
pub use provider::{SecretProvider, Secrets};
pub use secret::SecretString;
