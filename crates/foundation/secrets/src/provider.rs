//! Where secrets come from: the port, and the providers for the environment, files and chains of others.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use runtime_kernel::{Classify, ErrorKind};

use crate::secret::SecretString;

/// The largest secret a file may hold, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// A name that could reach outside where it should.
    #[error(
        "`{0}` is not a secret's name: letters, digits, `_`, `-` and `.`, first a letter or digit, at most 128"
    )]
    Name(String),
    /// The file is larger than 64 KiB.
    #[error("the secret `{0}` is larger than 64 KiB")]
    TooLarge(String),
    /// The secret is not text.
    #[error("the secret `{0}` is not UTF-8")]
    NotText(String),
    /// The place could not be read.
    #[error("the secret `{name}` could not be read: {source}")]
    Unreadable {
        /// Which.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Classify for SecretError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::Invalid,
            Self::TooLarge(_) => ErrorKind::TooLarge,
            Self::NotText(_) => ErrorKind::Internal,
            Self::Unreadable { .. } => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "secrets.invalid_name",
            Self::TooLarge(_) => "secrets.too_large",
            Self::NotText(_) => "secrets.not_text",
            Self::Unreadable { .. } => "secrets.unreadable",
        }
    }
}
runtime_kernel::into_error!(SecretError);

/// Where secrets come from.
#[async_trait]
pub trait SecretProvider: Send + Sync + 'static {
    /// The secret of a name; `None` when there is none.
    async fn get(&self, name: &str) -> Result<Option<SecretString>, SecretError>;
}

/// Secrets in environment variables: `db.password` under the prefix `APP_` is `APP_DB_PASSWORD`.
#[derive(Clone, Debug)]
pub struct EnvProvider {
    prefix: String,
    variables: Arc<HashMap<String, SecretString>>,
}

impl EnvProvider {
    /// The process's environment as it is now.
    pub fn from_process(prefix: impl Into<String>) -> Self {
        Self::new(
            prefix,
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    /// Variables that are given.
    pub fn new(prefix: impl Into<String>, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let prefix = prefix.into();
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with(&prefix));
        let variables = ours.map(|(name, value)| (name, SecretString::from(value))).collect();
        Self { prefix, variables: Arc::new(variables) }
    }
}

#[async_trait]
impl SecretProvider for EnvProvider {
    async fn get(&self, name: &str) -> Result<Option<SecretString>, SecretError> {
        check(name)?;
        let variable = format!("{}{}", self.prefix, name.to_ascii_uppercase().replace(['.', '-'], "_"));
        Ok(self.variables.get(&variable).cloned())
    }
}

/// Secrets in files of one folder, as Docker and Kubernetes mount them. Read anew each time, so that a rotated mount
/// is seen; a line end at the end is not part of the secret.
#[derive(Clone, Debug)]
pub struct FileProvider {
    folder: PathBuf,
}

impl FileProvider {
    /// The files of a folder: `/run/secrets`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }
}

#[async_trait]
impl SecretProvider for FileProvider {
    async fn get(&self, name: &str) -> Result<Option<SecretString>, SecretError> {
        check(name)?;
        let (path, name) = (self.folder.join(name), name.to_owned());
        let read = tokio::task::spawn_blocking(move || read(&path, &name)).await;
        read.map_err(|error| SecretError::Unreadable {
            name: String::new(),
            source: std::io::Error::other(error),
        })?
    }
}

fn read(path: &std::path::Path, name: &str) -> Result<Option<SecretString>, SecretError> {
    let unreadable = |source| SecretError::Unreadable { name: name.to_owned(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(file) if file.len() > MAX_FILE => return Err(SecretError::TooLarge(name.to_owned())),
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let mut text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(name.to_owned()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Some(SecretString::from(text)))
}

/// Asks providers in turn; the first that has the secret answers. A failing one ends the search: its secret must not
/// be replaced by an older one further down.
#[derive(Clone, Default)]
pub struct Chain(Vec<Arc<dyn SecretProvider>>);

impl Chain {
    /// No provider yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a provider, asked after those before it.
    #[must_use]
    pub fn then(mut self, provider: impl SecretProvider) -> Self {
        self.0.push(Arc::new(provider));
        self
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("providers", &self.0.len()).finish()
    }
}

#[async_trait]
impl SecretProvider for Chain {
    async fn get(&self, name: &str) -> Result<Option<SecretString>, SecretError> {
        check(name)?;
        for provider in &self.0 {
            if let Some(secret) = provider.get(name).await? {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }
}

fn check(name: &str) -> Result<(), SecretError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if first && clean && name.len() <= 128 && !name.contains("..") {
        return Ok(());
    }
    Err(SecretError::Name(name.chars().take(128).collect()))
}
