#![doc = include_str!("../README.md")]

mod authenticator;
mod cache;
mod config;
mod error;
mod events;
mod format;
mod hash;
mod key;
#[cfg(feature = "testkit")]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "laws fail by panicking")]
#[allow(clippy::missing_panics_doc, reason = "every law panics when it is broken")]
pub mod laws;
#[cfg(feature = "http")]
mod layer;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
mod service;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod store;

pub use authenticator::{Authenticator, Verified};
pub use config::ApiKeyConfig;
pub use error::{KeyError, Rejection};
pub use events::{Hook, KeyEvent};
pub use format::{MalformedKey, PATTERN, PresentedKey};
pub use hash::SecretHash;
pub use key::{ApiKey, IssuedKey, KeyId, KeyState, Limits, NewKey};
#[cfg(feature = "http")]
pub use layer::{ApiKeyFuture, ApiKeyLayer, ApiKeyService, require};
pub use memory::MemoryKeyStore;
#[cfg(feature = "module")]
pub use module::{API_KEYS, ApiKeyModule};
pub use service::{ApiKeys, ApiKeysBuilder};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlKeyStore;
pub use store::{KeyFilter, KeyStore, Rotation, StoredKey};
