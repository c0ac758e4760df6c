//! Settings of a registry, and what is wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, units};
use serde::{Deserialize, Serialize};

/// The section `health`: what holds for checks that do not say otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthConfig {
    /// Whether anything is looked at. Default `true`; off, probes only say whether the process has come up or leaves.
    pub enabled: bool,
    /// How long after one look the next begins. Default 10 s.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The longest one look may take. Default 5 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// How many failures in a row make a check unhealthy. Default 3.
    pub failure_threshold: u32,
    /// How many successes in a row make it healthy again. Default 1.
    pub success_threshold: u32,
    /// Whether probes show each check, or the status alone. Default `false`. Read by what serves the probes.
    pub show_details: bool,
    /// Whether readiness passes while the whole is degraded. Default `true`.
    pub degraded_passes: bool,
    /// Features that are off unless the whole is healthy: [`HealthRegistry::allows`](crate::HealthRegistry::allows) says
    /// so. None by default.
    pub disable_when_degraded: Vec<String>,
    /// What holds for single checks, by name; a name covers `name.*` as well. A check's own settings give way to it.
    pub checks: BTreeMap<String, CheckConfig>,
    /// Who is told when the whole gets better or worse.
    pub alerts: AlertConfig,
}

/// What an operator says of one check. What is left out stays as the check has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CheckConfig {
    /// Whether it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it can fail the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical: Option<bool>,
    /// How long after one look the next begins.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// The longest one look may take.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
    /// How many successes in a row make it healthy again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<u32>,
}

/// Who is told when the whole gets better or worse. Read by what can send it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AlertConfig {
    /// A URL that takes `{"text": "…"}`, as Slack's incoming webhooks do. It is as secret as a password. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack_webhook: Option<String>,
}

/// Without the URL: whoever has it may write there.
impl fmt::Debug for AlertConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertConfig").field("slack_webhook", &self.slack_webhook.is_some()).finish()
    }
}

impl HealthConfig {
    /// What is said of a check: under its name, or under what comes before the first dot of it.
    pub(crate) fn of(&self, name: &str) -> Option<&CheckConfig> {
        let group = || self.checks.get(name.split_once('.')?.0);
        self.checks.get(name).or_else(group)
    }

    /// Names under which something is said, and no check answers to.
    pub(crate) fn idle(&self, names: &[&str]) -> Vec<&str> {
        let answers = |said: &str| {
            let group = |name: &str| name.split_once('.').is_some_and(|(group, _)| group == said);
            names.iter().any(|name| *name == said || group(name))
        };
        self.checks.keys().map(String::as_str).filter(|said| !answers(said)).collect()
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
            success_threshold: 1,
            show_details: false,
            degraded_passes: true,
            disable_when_degraded: Vec::new(),
            checks: BTreeMap::new(),
            alerts: AlertConfig::default(),
        }
    }
}

/// Why a registry was not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// Two checks have one name.
    #[error("the health check `{0}` is registered twice")]
    Duplicate(String),
    /// A time or threshold is 0, or the name empty.
    #[error("the health check `{check}`: {message}")]
    Setting {
        /// Which; `*` for what holds for all.
        check: String,
        /// What is wrong.
        message: &'static str,
    },
    /// The gauge could not be registered.
    #[error("health metrics: {0}")]
    Metrics(String),
}

impl Classify for HealthError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Duplicate(_) => "health.duplicate",
            Self::Setting { .. } => "health.setting",
            Self::Metrics(_) => "health.metrics",
        }
    }
}

runtime_kernel::into_error!(HealthError);
