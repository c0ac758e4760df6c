//! Why a secret could not be had.

use runtime_kernel::{Classify, ErrorKind};

use crate::SecretName;

/// Why a secret could not be had. Never carries a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The name is not one.
    #[error("a secret's name is 1 to 128 letters, digits, `_`, `.` or `-`, first a letter or digit")]
    Name,
    /// No provider has it.
    #[error("the secret `{0}` is not set")]
    Missing(SecretName),
    /// It is there and cannot be used.
    #[error("the secret `{name}` cannot be used: {why}")]
    Unusable {
        /// Which.
        name: SecretName,
        /// Why, without the value.
        why: &'static str,
    },
    /// The provider could not be asked.
    #[error("the secret `{name}` could not be read from {provider}: {why}")]
    Unavailable {
        /// Which.
        name: SecretName,
        /// From where.
        provider: &'static str,
        /// Why, without the value.
        why: String,
    },
}

impl Classify for SecretError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name => ErrorKind::Invalid,
            // Whoever called the service did nothing wrong: it is not set up.
            Self::Missing(_) | Self::Unusable { .. } => ErrorKind::Internal,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name => "secrets.name",
            Self::Missing(_) => "secrets.missing",
            Self::Unusable { .. } => "secrets.unusable",
            Self::Unavailable { .. } => "secrets.unavailable",
        }
    }
}

runtime_kernel::into_error!(SecretError);
