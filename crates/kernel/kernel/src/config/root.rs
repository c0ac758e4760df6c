//! The kernel's own top-level keys: `env`, `mode`, `service_name`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::section::{Invalid, Section};
use crate::Mode;

/// Where the process runs. Locked paths are open in `local` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// A developer's machine or a test: the default.
    #[default]
    Local,
    /// The rehearsal.
    Staging,
    /// The real thing.
    Production,
}

impl Environment {
    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The keys that stand outside any table.
pub(super) const KEYS: &[&str] = &["env", "mode", "service_name"];

/// What the kernel itself reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Root {
    pub(super) env: Environment,
    pub(super) mode: Mode,
    pub(super) service_name: String,
}

impl Default for Root {
    fn default() -> Self {
        Self { env: Environment::default(), mode: Mode::default(), service_name: "runtime".to_owned() }
    }
}

impl Section for Root {
    const PATH: &'static str = "";

    fn validate(&self) -> Result<(), Invalid> {
        if self.service_name.trim().is_empty() {
            return Err(Invalid::new("service_name", "must not be empty"));
        }
        Ok(())
    }
}
