//! The server's own settings, and how the whole configuration is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runtime_apikey::ApiKeyConfig;
use runtime_audit::AuditConfig;
use runtime_client::ClientConfig;
use runtime_cron::CronConfig;
use runtime_db::DbConfig;
use runtime_discovery::DiscoveryConfig;
use runtime_events::EventsConfig;
use runtime_health::HealthConfig;
use runtime_http::HttpConfig;
use runtime_jobs::JobsConfig;
use runtime_kernel::app::SupervisionConfig;
use runtime_kernel::config::{Config, ConfigBuilder, ConfigError, Environment, Invalid, Section};
use runtime_kernel::lifecycle::ShutdownConfig;
use runtime_limits::LimitsConfig;
use runtime_outbox::OutboxConfig;
use runtime_providers::ProvidersConfig;
use runtime_ratelimit::RateLimitConfig;
use runtime_redis::RedisConfig;
use runtime_resilience::ResilienceConfig;
use runtime_rollout::RolloutConfig;
use runtime_saga::SagaConfig;
use runtime_telemetry::TelemetryConfig;
use runtime_tenancy::TenancyConfig;
use runtime_workflow::WorkflowConfig;
use serde::{Deserialize, Serialize};

use crate::cli::Global;
use crate::maintenance::TaskConfig;
use crate::relays::{self, RelayConfig};

/// The section `server`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerConfig {
    /// Where the embedded database and files live. `runtime-data` unless told.
    pub(crate) data_dir: PathBuf,
    /// Maintenance, by the name of the task: whether and when it is run. Every task when its crate says, unless told.
    pub(crate) maintenance: BTreeMap<String, TaskConfig>,
    /// What becomes of messages that applications put into the outbox of this database, by channel. Unless told, they stay.
    pub(crate) relays: BTreeMap<String, RelayConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let (maintenance, relays) = (BTreeMap::new(), BTreeMap::new());
        Self { data_dir: PathBuf::from("runtime-data"), maintenance, relays }
    }
}

impl Section for ServerConfig {
    const PATH: &'static str = "server";

    fn validate(&self) -> Result<(), Invalid> {
        relays::problem(&self.relays).map_or(Ok(()), |(key, problem)| Err(Invalid::new(key, problem)))
    }
}

impl ServerConfig {
    /// The embedded database.
    pub(crate) fn database_url(&self) -> String {
        format!("sqlite:{}", self.data_dir.join("runtime.db").display())
    }
}

/// Reads every layer, as the command line says.
pub(crate) fn read(global: &Global) -> Result<Config, ConfigError> {
    // Without sections: only what somebody has said.
    let said = layers(global).build()?;
    let guarded = said.get::<String>("client.guard")?.is_some();
    let layers = layers(global);
    // On a developer's machine jobs may call the machine itself, unless somebody has said otherwise.
    let local = said.environment() == Environment::Local && !guarded;
    declared(if local { layers.set("client.guard", "local") } else { layers }).build()
}

fn layers(global: &Global) -> ConfigBuilder {
    let builder = Config::builder().prefix(&global.env_prefix).process_env().search(".");
    let builder = global.config.iter().fold(builder, ConfigBuilder::file);
    global.set.iter().fold(builder, |builder, text| builder.assign(text))
}

/// Every section is declared, so that every mistake in any of them is told at once.
fn declared(builder: ConfigBuilder) -> ConfigBuilder {
    builder
        .section::<ServerConfig>()
        .section::<ApiKeyConfig>()
        .section::<AuditConfig>()
        .section::<ClientConfig>()
        .section::<CronConfig>()
        .section::<DbConfig>()
        .section::<DiscoveryConfig>()
        .section::<EventsConfig>()
        .section::<HealthConfig>()
        .section::<SagaConfig>()
        .section::<WorkflowConfig>()
        .section::<HttpConfig>()
        .section::<JobsConfig>()
        .section::<LimitsConfig>()
        .section::<OutboxConfig>()
        .section::<ProvidersConfig>()
        .section::<RateLimitConfig>()
        .section::<RedisConfig>()
        .section::<ResilienceConfig>()
        .section::<RolloutConfig>()
        .section::<ShutdownConfig>()
        .section::<SupervisionConfig>()
        .section::<TelemetryConfig>()
        .section::<TenancyConfig>()
}
