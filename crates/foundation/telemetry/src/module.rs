//! The app's telemetry: logs as the section says, one metrics registry, levels that follow a reload.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::Error;
use runtime_kernel::app::{App, Importance, Module, Run, Service, SetupError};
use runtime_kernel::config::{Config, ConfigError, Invalid, Section, Subscription};
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::Stage;

use crate::{Levels, Metrics, Telemetry, TelemetryConfig, TelemetryError, TelemetryGuard};

/// The app's metrics.
pub const METRICS: Token<Metrics> = Token::new("telemetry.metrics");

impl Section for TelemetryConfig {
    const PATH: &'static str = "telemetry";
    const LOCKED: &'static [&'static str] = &["otlp_endpoint"];
    const RELOADABLE: &'static [&'static str] = &["levels"];

    fn validate(&self) -> Result<(), Invalid> {
        self.check().map_err(|error| match error {
            TelemetryError::Setting { field, message } => Invalid::new(field, message),
            other => Invalid::new("", other.to_string()),
        })
    }
}

impl TelemetryConfig {
    /// The section `telemetry` with the service's name and environment from the configuration's root, for a `main`
    /// that logs before it builds an app.
    ///
    /// # Errors
    /// As [`Config::section`].
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let mut section: Self = config.section()?;
        section.service = config.service_name();
        config.environment().as_str().clone_into(&mut section.env);
        Ok(section)
    }
}

/// The app's one metrics registry while modules register.
pub trait MetricsApp {
    /// The registry that [`TelemetryModule`] puts into the container as [`METRICS`], whatever the modules' order.
    fn metrics(&mut self) -> Metrics;
}

impl MetricsApp for App {
    fn metrics(&mut self) -> Metrics {
        self.contribute::<Metrics>().clone()
    }
}

/// Puts [`METRICS`] into the container, flushes at [`Stage::Flush`] and lets a reload change the levels.
#[derive(Debug, Default)]
pub struct TelemetryModule {
    guard: Option<Arc<TelemetryGuard>>,
}

impl TelemetryModule {
    /// Installs the process's log subscriber when it is registered, unless there is one already, which then stays as
    /// it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// For telemetry that `main` has set up already and keeps.
    pub fn with(guard: impl Into<Arc<TelemetryGuard>>) -> Self {
        Self { guard: Some(guard.into()) }
    }

    fn guard(&self, config: TelemetryConfig, app: &App) -> Result<Option<Arc<TelemetryGuard>>, Error> {
        if let Some(guard) = &self.guard {
            return Ok(Some(Arc::clone(guard)));
        }
        match Telemetry::new(config).and_then(|telemetry| telemetry.clock(app.shared_clock()).install()) {
            Ok(guard) => Ok(Some(Arc::new(guard))),
            Err(TelemetryError::AlreadyInstalled) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// How long the flush at shutdown may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

impl Module for TelemetryModule {
    fn name(&self) -> &'static str {
        "telemetry"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.section::<TelemetryConfig>()?;
        let config = TelemetryConfig::of(app.config())?;
        let metrics = app.metrics();
        metrics.set_max_series(config.max_series);
        // The workspace has one version, so this crate's is the service's.
        metrics.build_info(&config.service, env!("CARGO_PKG_VERSION")).map_err(Error::from)?;
        app.services().value(METRICS, metrics);
        let Some(guard) = self.guard(config, app)? else { return Ok(()) };
        let settings = app.config().subscribe::<TelemetryConfig>()?;
        app.service(LevelsService { levels: guard.levels(), settings });
        app.shutdown().hook(Stage::Flush, "telemetry", FLUSH_TIMEOUT, move || async move {
            tokio::task::spawn_blocking(move || guard.flush(FLUSH_TIMEOUT / 2))
                .await
                .map_err(Error::internal)??;
            Ok(())
        });
        Ok(())
    }
}

/// Sets the levels when a reload changes them.
struct LevelsService {
    levels: Levels,
    settings: Subscription<TelemetryConfig>,
}

#[async_trait]
impl Service for LevelsService {
    fn name(&self) -> &'static str {
        "telemetry.levels"
    }

    fn stops_at(&self) -> Stage {
        Stage::Flush
    }

    fn importance(&self) -> Importance {
        Importance::Optional
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let mut settings = self.settings.clone();
        loop {
            tokio::select! {
                () = run.stop.stopped() => return Ok(()),
                config = settings.changed() => {
                    self.levels.set(&config.levels)?;
                    tracing::info!(target: "telemetry", levels = config.levels, "log levels changed");
                }
            }
        }
    }
}
