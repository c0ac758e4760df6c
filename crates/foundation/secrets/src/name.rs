//! What a secret may be called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::SecretError;

/// A secret's name: 1 to 128 of `a-z A-Z 0-9 _ . -`, first a letter or digit. Never a path: there is no `/`, no `\`,
/// and no leading dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`SecretError::Name`], without the text: somebody may have passed the secret itself.
    pub fn new(text: impl AsRef<str>) -> Result<Self, SecretError> {
        let text = text.as_ref();
        let fits = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && text.len() <= 128;
        let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if fits && text.bytes().all(alphabet) { Ok(Self(Arc::from(text))) } else { Err(SecretError::Name) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        Self::new(text)
    }
}
