//! What an operator writes about hardened chats.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::CacheConfig;

/// How calls are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HardenConfig {
    /// How often a call is tried in all, over all targets. Default 4.
    pub max_attempts: u32,
    /// How long an attempt may take up to its answer's end, or a stream up to its first words. Default 1 min; the time
    /// left is split, so that every target that may follow has its share.
    #[serde(with = "runtime_kernel::units::duration")]
    pub attempt_timeout: Duration,
    /// How long a call may take, a stream up to its end; the context's deadline shortens it. Default 2 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub timeout: Duration,
    /// The longest wait for room under our own limits. Default 30 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_wait: Duration,
    /// Keeps answers, and asks once for all who ask the same at the same time. Never by default; streams never are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
    /// The quota (of the `Quotas` given) in millionths of a dollar that bounds what a tenant may spend. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

impl Default for HardenConfig {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            attempt_timeout: Duration::from_mins(1),
            timeout: Duration::from_mins(2),
            max_wait: Duration::from_secs(30),
            cache: None,
            quota: None,
        }
    }
}

/// Which targets follow which failure, by name. Targets that are not named are not called for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chains {
    /// The order in which targets are tried. Default the order they are given in.
    pub order: Vec<String>,
    /// Those that read more, for chats that are too long.
    pub context_window: Vec<String>,
    /// Those with another policy.
    pub content_policy: Vec<String>,
}
