//! Where keys rest: the port every backend implements.

use std::fmt;

use async_trait::async_trait;
use runtime_kernel::{Name, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::KeyError;
use crate::hash::SecretHash;
use crate::key::{ApiKey, KeyId};

/// A key with its hashes, as it rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// What lists show.
    pub key: ApiKey,
    /// The present secret's hash.
    pub hash: SecretHash,
    /// The hash of the secret before it, which holds until [`ApiKey::overlap_until`].
    pub previous: Option<SecretHash>,
    /// Counts rotations: the compare-and-swap that lets only one of two racing rotations win.
    pub generation: u32,
}

/// A rotation to write down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The new secret's hash.
    pub hash: SecretHash,
    /// The new secret's last four characters.
    pub hint: String,
    /// When.
    pub at: Timestamp,
    /// Until when the present secret goes on holding; `None` ends it at once.
    pub overlap_until: Option<Timestamp>,
    /// The generation it starts from.
    pub generation: u32,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct KeyFilter {
    /// Only of this realm.
    pub realm: Option<Name>,
    /// Only of this tenant.
    pub tenant: Option<Name>,
    /// Revoked ones too.
    pub revoked: bool,
    /// Only those made after this one: the last id of the page before.
    pub after: Option<KeyId>,
    /// How many at most: 1 to 1000. Default 100.
    pub limit: Option<u32>,
}

impl KeyFilter {
    /// Every key there is, revoked ones too, up to the limit.
    pub fn all() -> Self {
        Self { revoked: true, ..Self::default() }
    }

    /// The limit in force.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }
}

/// Where keys rest. Every backend passes [`crate::laws`] (feature `testkit`).
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Writes a new key.
    ///
    /// # Errors
    /// [`KeyError::Duplicate`] when the id is taken.
    async fn insert(&self, key: &StoredKey) -> Result<(), KeyError>;

    /// Writes a key if there is none at all, revoked ones counted; says whether it did. Of racing processes exactly
    /// one wins.
    async fn insert_first(&self, key: &StoredKey) -> Result<bool, KeyError>;

    /// Reads one key.
    async fn find(&self, id: KeyId) -> Result<Option<StoredKey>, KeyError>;

    /// Reads keys in the order they were made.
    async fn list(&self, filter: &KeyFilter) -> Result<Vec<ApiKey>, KeyError>;

    /// Replaces the secret; the present one becomes the previous, and one before that ends.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], [`KeyError::Revoked`], or [`KeyError::Raced`] when the generation has moved on.
    async fn rotate(&self, id: KeyId, rotation: &Rotation) -> Result<ApiKey, KeyError>;

    /// Takes a key back. A key revoked before keeps its first time and reason.
    ///
    /// # Errors
    /// [`KeyError::NotFound`].
    async fn revoke(&self, id: KeyId, at: Timestamp, reason: &str) -> Result<ApiKey, KeyError>;

    /// Notes last uses. Never moves one backwards; ids that are gone are skipped.
    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), KeyError>;
}
