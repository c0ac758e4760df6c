//! What can be wrong with a key, or with what is asked of one.

use runtime_kernel::{Classify, Error, ErrorKind, Retry};

use crate::key::KeyId;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A credential was presented that does not hold.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What was asked for is no key.
    #[error("`{key}` {message}")]
    Invalid {
        /// The field.
        key: &'static str,
        /// What it must be.
        message: &'static str,
    },
    /// No such key.
    #[error("there is no API key {0}")]
    NotFound(KeyId),
    /// A revoked key stays revoked.
    #[error("API key {0} is revoked")]
    Revoked(KeyId),
    /// Another process changed the key at the same moment.
    #[error("API key {0} was changed at the same moment; try again")]
    Raced(KeyId),
    /// A key of this id exists.
    #[error("API key {0} exists")]
    Duplicate(KeyId),
    /// The store failed.
    #[error("the API key store failed")]
    Store(#[source] Error),
    /// The operating system gave no randomness.
    #[error("no randomness to make a key of")]
    Entropy,
}

/// Why a presented key does not hold.
///
/// To the caller an unknown key and a wrong secret are the same. That a key is revoked, expired or not yet valid is
/// told only to who proved to hold its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It is no key: wrong shape or checksum.
    #[error("the API key is not valid")]
    Malformed,
    /// No such key, or the secret is not its.
    #[error("the API key is not valid")]
    Unknown,
    /// It was taken back.
    #[error("the API key was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the API key has expired")]
    Expired,
    /// Its time has not come.
    #[error("the API key is not valid yet")]
    NotYet,
    /// More than one was presented.
    #[error("more than one credential was sent")]
    Ambiguous,
}

impl Rejection {
    /// The reason in `snake_case`, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Ambiguous => "ambiguous",
        }
    }
}

impl Classify for Rejection {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Ambiguous => ErrorKind::Invalid,
            _ => ErrorKind::Unauthenticated,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Unknown => "apikey.invalid",
            Self::Revoked => "apikey.revoked",
            Self::Expired => "apikey.expired",
            Self::NotYet => "apikey.not_yet_valid",
            Self::Ambiguous => "apikey.ambiguous",
        }
    }
}

impl Classify for KeyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(rejection) => rejection.kind(),
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Revoked(_) | Self::Raced(_) | Self::Duplicate(_) => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
            Self::Entropy => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Invalid { .. } => "apikey.invalid_request",
            Self::NotFound(_) => "apikey.not_found",
            Self::Revoked(_) => "apikey.revoked",
            Self::Raced(_) => "apikey.raced",
            Self::Duplicate(_) => "apikey.duplicate",
            Self::Store(_) => "apikey.store_failed",
            Self::Entropy => "apikey.no_entropy",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Raced(_) => Retry::Now,
            Self::Store(error) => error.retry(),
            other => other.kind().default_retry(),
        }
    }
}

runtime_kernel::into_error!(KeyError, Rejection);
