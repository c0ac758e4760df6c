//! How a secret rests in the store, and how it is compared.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use runtime_secrets::SecretString;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A secret at rest. Not printable: it is not the secret, but nobody needs to read it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(***)")
    }
}

impl SecretHash {
    /// As a store read it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As a store writes it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// SHA-256, or HMAC-SHA-256 with a pepper that the database does not hold.
///
/// A slow password hash would add nothing: 256 random bits cannot be guessed, and each request would pay for it.
#[derive(Clone)]
pub(crate) struct Hasher {
    pepper: Option<SecretString>,
}

impl Hasher {
    pub(crate) fn new(pepper: Option<SecretString>) -> Self {
        Self { pepper }
    }

    pub(crate) fn hash(&self, secret: &str) -> SecretHash {
        let keyed = self
            .pepper
            .as_ref()
            .and_then(|pepper| Hmac::<Sha256>::new_from_slice(pepper.expose().as_bytes()).ok());
        let bytes = match keyed {
            Some(mut mac) => {
                mac.update(secret.as_bytes());
                mac.finalize().into_bytes().into()
            }
            None => Sha256::digest(secret.as_bytes()).into(),
        };
        SecretHash(bytes)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("peppered", &self.pepper.is_some()).finish()
    }
}
