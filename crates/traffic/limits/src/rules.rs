//! What an operator writes about the limits on requests.

#[cfg(feature = "quota")]
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::ConcurrencyConfig;
use crate::criticality::Criticality;
use crate::error::LimitsError;

/// The name of the server's limit.
pub(crate) const SERVER: &str = "server";

/// The section `limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Whether requests are limited. Default true.
    pub enabled: bool,
    /// How many requests may be under way in all. Default 10,000, fixed.
    pub server: ConcurrencyConfig,
    /// A header by which callers say how much a request matters (`sheddable`, `sheddable_plus`, `critical`,
    /// `critical_plus`). Set it only where callers are trusted. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criticality_header: Option<String>,
    /// What is said of single routes; of several rules that cover a request the first one counts.
    pub rules: Vec<LimitRule>,
    /// How much each tenant may have, by name.
    #[cfg(feature = "quota")]
    pub quotas: BTreeMap<String, crate::quota::QuotaConfig>,
    /// When buffers leave memory.
    #[cfg(feature = "spill")]
    pub spill: crate::spill::SpillConfig,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            server: ConcurrencyConfig::fixed(10_000),
            criticality_header: None,
            rules: Vec::new(),
            #[cfg(feature = "quota")]
            quotas: BTreeMap::new(),
            #[cfg(feature = "spill")]
            spill: crate::spill::SpillConfig::default(),
        }
    }
}

/// What is said of some routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitRule {
    /// The name in metrics and answers: no other rule's, and not `server`, which is the name of the server's limit.
    pub name: String,
    /// The methods it covers; all of them when there are none.
    pub methods: Vec<String>,
    /// The paths it covers, `*` at the end for all that begin so; all of them when there are none.
    pub paths: Vec<String>,
    /// How much these requests matter. Default what the header says, or `critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criticality: Option<Criticality>,
    /// A limit of their own, beside the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<ConcurrencyConfig>,
    /// Whether each route has that limit to itself. Default false: they share one.
    pub per_route: bool,
    /// Whether the server's limit does not count them: for answers that stay open, like server-sent events. Default
    /// false.
    pub exempt: bool,
}

impl LimitsConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`LimitsError`] names the key that is wrong.
    pub fn check(&self) -> Result<(), LimitsError> {
        let inside = |place: String, error: LimitsError| {
            LimitsError::new(format!("{place}.{}", error.key), error.message)
        };
        self.server.check().map_err(|error| inside(SERVER.to_owned(), error))?;
        for (nth, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|error| inside(format!("rules.{nth}"), error))?;
            if rule.name == SERVER || self.rules.iter().take(nth).any(|other| other.name == rule.name) {
                let message = "must be the name of no other rule, and not `server`";
                return Err(LimitsError::new(format!("rules.{nth}.name"), message));
            }
        }
        #[cfg(feature = "quota")]
        for (name, quota) in &self.quotas {
            quota.check(name)?;
        }
        Ok(())
    }
}

impl LimitRule {
    fn check(&self) -> Result<(), LimitsError> {
        let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(clean) {
            return Err(LimitsError::new("name", "must be 1 to 64 letters, digits, `_`, `.` or `-`"));
        }
        if self.paths.iter().any(|path| !path.starts_with('/')) {
            return Err(LimitsError::new("paths", "must begin with `/`"));
        }
        if self.per_route && self.limit.is_none() {
            return Err(LimitsError::new("per_route", "needs a `limit`"));
        }
        let limit = self.limit.map_or(Ok(()), ConcurrencyConfig::check);
        limit.map_err(|error| LimitsError::new(format!("limit.{}", error.key), error.message))
    }

    pub(crate) fn covers(&self, method: &str, path: &str) -> bool {
        let fits = |own: &String| own.strip_suffix('*').map_or(own == path, |start| path.starts_with(start));
        (self.methods.is_empty() || self.methods.iter().any(|own| own.eq_ignore_ascii_case(method)))
            && (self.paths.is_empty() || self.paths.iter().any(fits))
    }
}
