//! What an operator writes about rollouts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::analysis::AnalysisConfig;
use crate::error::RolloutError;
use crate::state::{Kind, Plan};

/// The section `rollout`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RolloutConfig {
    /// The rollouts, by name.
    pub routes: BTreeMap<String, RoutesConfig>,
}

/// One rollout: which requests it is about, and where they may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoutesConfig {
    /// By canary, or by blue-green. Default canary.
    pub kind: Kind,
    /// The path whose requests are passed on, with all below it: `/shop`. Only for upstreams; none by default.
    pub path: String,
    /// The primary upstream (blue): `http://orders-v1.internal:8080`, or `http://<name>.service`. None by default.
    pub primary: String,
    /// The canary upstream (green).
    pub canary: String,
    /// What keeps a caller on its side: the first that is known. Default principal, then cookie.
    pub sticky: Vec<Sticky>,
    /// A header by which a request says which side it wants. Set it only where callers may choose. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// How long a request may take before it counts as slow. Default 1 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub slow: Duration,
    /// How it proceeds.
    pub plan: Plan,
    /// When the canary counts as worse.
    pub analysis: AnalysisConfig,
}

/// What keeps a caller on its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sticky {
    /// Who asks, once proved.
    Principal,
    /// Whose data it is about.
    Tenant,
    /// A cookie that the first answer sets.
    Cookie,
    /// Nothing: each request for itself.
    Request,
}

impl Default for RoutesConfig {
    fn default() -> Self {
        Self {
            kind: Kind::Canary,
            path: String::new(),
            primary: String::new(),
            canary: String::new(),
            sticky: vec![Sticky::Principal, Sticky::Cookie],
            header: None,
            slow: Duration::from_secs(1),
            plan: Plan::default(),
            analysis: AnalysisConfig::default(),
        }
    }
}

impl RolloutConfig {
    /// Checks every rollout.
    ///
    /// # Errors
    /// [`RolloutError::Config`] names the key that is wrong.
    pub fn check(&self) -> Result<(), RolloutError> {
        for (name, routes) in &self.routes {
            routes.check(name).map_err(|error| match error {
                RolloutError::Config { key, message } => {
                    RolloutError::Config { key: format!("routes.{name}.{key}"), message }
                }
                other => other,
            })?;
        }
        Ok(())
    }
}

impl RoutesConfig {
    pub(crate) fn check(&self, name: &str) -> Result<(), RolloutError> {
        let wrong = |key: &str, message: &str| {
            Err(RolloutError::Config { key: key.to_owned(), message: message.to_owned() })
        };
        let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(clean) {
            return wrong("name", "must be 1 to 64 letters, digits, `_` or `-`");
        }
        let upstreams = [&self.path, &self.primary, &self.canary].map(|text| !text.is_empty());
        if upstreams.contains(&true) && upstreams.contains(&false) {
            return wrong("path", "and `primary` and `canary` go together");
        }
        if !self.path.is_empty() && (!self.path.starts_with('/') || self.path.contains(['{', '*', '?', '#']))
        {
            return wrong("path", "must begin with `/` and have no parameters");
        }
        for (key, url) in [("primary", &self.primary), ("canary", &self.canary)] {
            if !(url.is_empty() || url.starts_with("http://") || url.starts_with("https://")) {
                return wrong(key, "must be an http or https URL");
            }
        }
        if self.sticky.is_empty() {
            return wrong("sticky", "must not be empty: `request` for nothing");
        }
        if self.slow.is_zero() {
            return wrong("slow", "must be more than 0");
        }
        self.plan.check()?;
        self.analysis.check()
    }
}
