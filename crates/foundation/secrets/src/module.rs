//! The app's secrets: what the section `secrets` says, cached.

use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::Section;
use runtime_kernel::container::Token;
use runtime_kernel::units::{self, ByteSize};
use serde::{Deserialize, Serialize};

use crate::{CachedSecrets, ChainedSecrets, DirectorySecrets, EnvSecrets, Secrets};

/// The app's secrets.
pub const SECRETS: Token<Secrets> = Token::new("secrets");

/// The section `secrets`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SecretsConfig {
    /// Variables of this prefix are secrets; asked first. Default `SECRET`: `db.password` is `SECRET_DB_PASSWORD`.
    pub env_prefix: String,
    /// The directory whose files are secrets; asked second. Default `/run/secrets`, where Docker mounts them.
    pub directory: PathBuf,
    /// The largest secret. Default 64 KiB.
    pub max_size: ByteSize,
    /// How long a value is kept before it is read again. Default 30 s.
    #[serde(with = "units::duration")]
    pub ttl: Duration,
    /// How much longer a value serves while its provider is unavailable. Default 5 min.
    #[serde(with = "units::duration")]
    pub stale: Duration,
}

impl Default for SecretsConfig {
    fn default() -> Self {
        Self {
            env_prefix: "SECRET".to_owned(),
            directory: PathBuf::from("/run/secrets"),
            max_size: ByteSize::kib(64),
            ttl: Duration::from_secs(30),
            stale: Duration::from_mins(5),
        }
    }
}

impl Section for SecretsConfig {
    const PATH: &'static str = "secrets";
    const LOCKED: &'static [&'static str] = &["env_prefix", "directory"];
}

/// Puts [`SECRETS`] into the container.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecretsModule;

impl Module for SecretsModule {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: SecretsConfig = app.section()?;
        let chain = ChainedSecrets::new()
            .then(EnvSecrets::from_process(config.env_prefix))
            .then(DirectorySecrets::with_limit(config.directory, config.max_size));
        let cached = CachedSecrets::new(chain, app.shared_clock(), config.ttl).stale_for(config.stale);
        app.services().value(SECRETS, Secrets::new(cached));
        Ok(())
    }
}
