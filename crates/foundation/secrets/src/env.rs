//! Secrets in environment variables.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;

use async_trait::async_trait;

use crate::{SecretError, SecretName, SecretProvider, SecretString};

/// Reads `db.password` from `PREFIX_DB_PASSWORD`: upper case, `.` and `-` as `_`. Names that differ only in those
/// are one variable. An empty variable counts as not set.
pub struct EnvSecrets {
    prefix: String,
    variables: HashMap<String, OsString>,
}

impl fmt::Debug for EnvSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvSecrets").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl EnvSecrets {
    /// Over the process's environment as it is now; only variables with the prefix are kept. An empty prefix means
    /// the bare names.
    pub fn from_process(prefix: impl Into<String>) -> Self {
        Self::new(prefix, std::env::vars_os())
    }

    /// Over these variables.
    pub fn new<N: Into<OsString>, V: Into<OsString>>(
        prefix: impl Into<String>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut prefix = prefix.into();
        if !prefix.is_empty() && !prefix.ends_with('_') {
            prefix.push('_');
        }
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
            .filter(|(name, _)| name.starts_with(&prefix))
            .collect();
        Self { prefix, variables }
    }

    /// The variable a name is read from.
    pub fn variable(&self, name: &SecretName) -> String {
        let bare = name.as_str().replace(['.', '-'], "_").to_ascii_uppercase();
        format!("{}{bare}", self.prefix)
    }
}

#[async_trait]
impl SecretProvider for EnvSecrets {
    fn name(&self) -> &'static str {
        "the environment"
    }

    async fn get(&self, name: &SecretName) -> Result<Option<SecretString>, SecretError> {
        match self.variables.get(&self.variable(name)) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(SecretString::from(text))),
                None => Err(SecretError::Unusable { name: name.clone(), why: "it is not valid UTF-8" }),
            },
        }
    }
}
