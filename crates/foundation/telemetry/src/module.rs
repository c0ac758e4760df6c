//! Wires telemetry into an `App`.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::Stage;

use crate::config::{TelemetryConfig, TelemetryError};
use crate::init::TelemetryGuard;
use crate::metrics::Metrics;

/// The process's metrics registry.
pub const METRICS: Token<Metrics> = Token::new("adapter.metrics");

/// How long the last lines and spans may take to go out.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

impl Section for TelemetryConfig {
    const PATH: &'static str = "telemetry";
    const LOCKED: &'static [&'static str] = &["otlp_endpoint"];
    const RELOADABLE: &'static [&'static str] = &["levels"];

    fn validate(&self) -> Result<(), Invalid> {
        match self.check() {
            Err(TelemetryError::Setting { field, message }) => Err(Invalid::new(field, message)),
            _ => Ok(()),
        }
    }
}

/// What modules do with metrics while they register.
pub trait MetricsApp {
    /// The registry the process will render.
    fn metrics(&mut self) -> Metrics;
}

/// The registry, as modules share it before the container is built.
#[derive(Clone, Debug, Default)]
struct Registry(Metrics);

impl MetricsApp for App {
    fn metrics(&mut self) -> Metrics {
        self.contribute::<Registry>().0.clone()
    }
}

/// Registers [`METRICS`], and flushes logs and spans at the end. The subscriber itself is installed by whoever starts
/// the process, before there is an app: [`Telemetry::init`](crate::Telemetry::init).
#[derive(Clone, Debug, Default)]
pub struct TelemetryModule {
    guard: Option<Arc<TelemetryGuard>>,
}

impl TelemetryModule {
    /// Metrics only: somebody else's subscriber, or none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows the section's levels live, and flushes at shutdown, in stage `Flush`.
    #[must_use]
    pub fn with_guard(mut self, guard: Arc<TelemetryGuard>) -> Self {
        self.guard = Some(guard);
        self
    }
}

impl Module for TelemetryModule {
    fn name(&self) -> &'static str {
        "telemetry"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: TelemetryConfig = app.section()?;
        let metrics = Metrics::with_max_series(config.max_series);
        app.contribute::<Registry>().0 = metrics.clone();
        metrics.build_info(&config.service, env!("CARGO_PKG_VERSION")).map_err(Error::internal)?;
        app.services().value(METRICS, metrics);
        let Some(guard) = self.guard.clone() else { return Ok(()) };
        app.service(Levels { guard: Arc::clone(&guard), config: app.config().subscribe()? });
        app.shutdown().hook(Stage::Flush, "telemetry", FLUSH_TIMEOUT * 2, move || async move {
            let flushed = tokio::task::spawn_blocking(move || guard.flush(FLUSH_TIMEOUT)).await;
            Ok(flushed.map_err(Error::internal)??)
        });
        Ok(())
    }
}

/// Changes what is logged when `telemetry.levels` is changed.
struct Levels {
    guard: Arc<TelemetryGuard>,
    config: runtime_kernel::config::Subscription<TelemetryConfig>,
}

#[async_trait::async_trait]
impl runtime_kernel::app::Service for Levels {
    fn name(&self) -> &'static str {
        "telemetry.levels"
    }

    fn importance(&self) -> runtime_kernel::app::Importance {
        runtime_kernel::app::Importance::Optional
    }

    async fn run(self: Arc<Self>, run: runtime_kernel::app::Run) -> Result<(), Error> {
        let mut config = self.config.clone();
        while run.stop.until(config.changed()).await.is_some() {
            if let Err(error) = self.guard.levels().set(&config.current().levels) {
                tracing::warn!(%error, "telemetry.levels was not changed");
            }
        }
        Ok(())
    }
}
