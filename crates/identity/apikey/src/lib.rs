#![doc = include_str!("../README.md")]

mod authenticator;
mod cache;
mod config;
mod error;
mod events;
mod format;
mod hash;
mod key;
mod memory;
mod service;
mod store;

pub use authenticator::{Authenticator, Verified};
pub use config::ApiKeyConfig;
pub use error::{KeyError, Rejection};
pub use events::{Hook, KeyEvent};
pub use format::{MalformedKey, PATTERN, PresentedKey};
pub use hash::SecretHash;
pub use key::{ApiKey, IssuedKey, KeyId, KeyState, Limits, NewKey};
pub use memory::MemoryKeyStore;
pub use service::{ApiKeys, ApiKeysBuilder};
pub use store::{KeyFilter, KeyStore, Rotation, StoredKey};
