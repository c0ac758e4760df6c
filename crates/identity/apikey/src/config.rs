//! The section `apikey`.

use std::time::Duration;

use runtime_secrets::SecretString;
use serde::{Deserialize, Serialize};

use crate::error::KeyError;
use crate::format::is_env;

/// How keys are made and checked. Section `apikey`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ApiKeyConfig {
    /// The part between `rt_` and a new key, such as `live`: a letter, then up to 15 letters or digits, lower case.
    /// None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Keys the hashes at rest (HMAC-SHA-256), so that a stolen database alone proves nothing. Changing it makes
    /// every key invalid. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pepper: Option<SecretString>,
    /// How long a verified or refused key is remembered: how late a revocation in another process may be seen. 0
    /// asks the store each time. At most 1 h, default 30 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub cache_ttl: Duration,
    /// How many verified keys are remembered. Default 10 000.
    pub cache_size: usize,
    /// How many refused keys are remembered. Default 1 000.
    pub negative_cache_size: usize,
    /// At most this often a key's last use is written down. Default 1 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub last_used_interval: Duration,
}

impl Default for ApiKeyConfig {
    fn default() -> Self {
        Self {
            env: None,
            pepper: None,
            cache_ttl: Duration::from_secs(30),
            cache_size: 10_000,
            negative_cache_size: 1_000,
            last_used_interval: Duration::from_mins(1),
        }
    }
}

impl ApiKeyConfig {
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        let wrong = |key, message| Err(KeyError::Invalid { key, message });
        if self.env.as_deref().is_some_and(|env| !is_env(env)) {
            return wrong("env", "must be a letter, then up to 15 letters or digits, lower case");
        }
        if self.pepper.as_ref().is_some_and(|pepper| pepper.expose().len() < 16) {
            return wrong("pepper", "must have at least 16 bytes");
        }
        if self.cache_ttl > Duration::from_hours(1) {
            return wrong("cache_ttl", "must not be more than 1 h");
        }
        if self.cache_size > 1_000_000 {
            return wrong("cache_size", "must not be more than 1000000");
        }
        if self.negative_cache_size > 1_000_000 {
            return wrong("negative_cache_size", "must not be more than 1000000");
        }
        if self.last_used_interval.is_zero() {
            return wrong("last_used_interval", "must not be 0");
        }
        Ok(())
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for ApiKeyConfig {
    const PATH: &'static str = "apikey";
    const SECRET: &'static [&'static str] = &["pepper"];

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        match self.check() {
            Err(KeyError::Invalid { key, message }) => {
                Err(runtime_kernel::config::Invalid::new(key, message))
            }
            _ => Ok(()),
        }
    }
}
