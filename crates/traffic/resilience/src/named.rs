//! Policies by name, from configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::config::{PolicyError, RetryConfig};
use crate::policy::RetryPolicy;

/// The section `resilience`: retry policies by name.
///
/// `default`, `expensive`, `quick` and `conservative` exist unless redefined; others may be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResilienceConfig {
    /// The retry policies.
    pub retry: BTreeMap<String, RetryConfig>,
}

impl Default for ResilienceConfig {
    fn default() -> Self {
        Self { retry: well_known().into_iter().map(|(name, config)| (name.to_owned(), config)).collect() }
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for ResilienceConfig {
    const PATH: &'static str = "resilience";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        for (name, config) in &self.retry {
            config.check().map_err(|error| {
                runtime_kernel::config::Invalid::new(format!("retry.{name}.{}", error.key), error.message)
            })?;
        }
        Ok(())
    }
}

/// Retry policies by name.
///
/// ```
/// use runtime_resilience::RetryPolicies;
///
/// let policies = RetryPolicies::default();
/// assert_eq!(policies.get("expensive").map(|policy| policy.max_attempts()), Ok(5));
/// assert_eq!(
///     policies.get("expansive").map_err(|error| error.to_string()),
///     Err("no retry policy `expansive`; there are conservative, default, expensive, quick".to_owned()),
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicies {
    named: BTreeMap<String, RetryPolicy>,
}

/// A policy was asked for that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no retry policy `{name}`; there are {known}")]
pub struct UnknownPolicy {
    name: String,
    known: String,
}

impl Classify for UnknownPolicy {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        "retry.unknown_policy"
    }
}

runtime_kernel::into_error!(UnknownPolicy);

impl Default for RetryPolicies {
    fn default() -> Self {
        let named = well_known()
            .into_iter()
            .filter_map(|(name, config)| Some((name.to_owned(), RetryPolicy::new(config).ok()?)));
        Self { named: named.collect() }
    }
}

impl RetryPolicies {
    /// The configured policies beside the well-known ones.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(config: ResilienceConfig) -> Result<Self, PolicyError> {
        let mut policies = Self::default();
        for (name, config) in config.retry {
            policies.named.insert(name, RetryPolicy::new(config)?);
        }
        Ok(policies)
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// [`UnknownPolicy`] lists the names there are.
    pub fn get(&self, name: &str) -> Result<&RetryPolicy, UnknownPolicy> {
        self.named.get(name).ok_or_else(|| UnknownPolicy {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }
}

fn well_known() -> [(&'static str, RetryConfig); 4] {
    let policy = |max_attempts, base_ms, max_secs, factor| RetryConfig {
        max_attempts,
        base_delay: Duration::from_millis(base_ms),
        max_delay: Duration::from_secs(max_secs),
        factor,
        ..RetryConfig::default()
    };
    [
        ("default", policy(3, 500, 5, 2.0)),
        ("expensive", policy(5, 1_000, 10, 2.0)),
        ("quick", policy(2, 100, 1, 2.0)),
        ("conservative", policy(3, 2_000, 30, 3.0)),
    ]
}
