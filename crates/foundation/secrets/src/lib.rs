#![doc = include_str!("../README.md")]

mod provider;
mod secret;

pub use provider::{Chain, EnvProvider, FileProvider, SecretError, SecretProvider};
pub use secret::SecretString;
