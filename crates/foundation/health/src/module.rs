//! The app's health: modules contribute checks, one service looks at them in every mode.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::{Container, Token};
use runtime_kernel::lifecycle::Stage;

use crate::{AlertConfig, Check, CheckConfig, HealthConfig, HealthRegistry, Outcome};

/// The app's health.
pub const HEALTH: Token<HealthRegistry> = Token::new("health");

impl Section for HealthConfig {
    const PATH: &'static str = "health";
    const SECRET: &'static [&'static str] = &["alerts.slack_webhook"];

    fn validate(&self) -> Result<(), Invalid> {
        let zero = |field| Err(Invalid::new(field, "must not be 0"));
        match self {
            Self { interval: Duration::ZERO, .. } => zero("interval"),
            Self { timeout: Duration::ZERO, .. } => zero("timeout"),
            Self { failure_threshold: 0, .. } => zero("failure_threshold"),
            Self { success_threshold: 0, .. } => zero("success_threshold"),
            Self { alerts: AlertConfig { slack_webhook: Some(url) }, .. }
                if !url.starts_with("https://") && !url.starts_with("http://") =>
            {
                Err(Invalid::new("alerts.slack_webhook", "must be an http or https URL"))
            }
            Self { checks, .. } => {
                let zero = |check: &CheckConfig| {
                    let times = [("interval", check.interval), ("timeout", check.timeout)];
                    let counts = [
                        ("failure_threshold", check.failure_threshold),
                        ("success_threshold", check.success_threshold),
                    ];
                    let time = times.into_iter().find(|(_, time)| *time == Some(Duration::ZERO));
                    let count = counts.into_iter().find(|(_, count)| *count == Some(0));
                    time.map(|(key, _)| key).or(count.map(|(key, _)| key))
                };
                let wrong = checks.iter().find_map(|(name, check)| Some((name, zero(check)?)));
                wrong.map_or(Ok(()), |(name, key)| {
                    Err(Invalid::new(format!("checks.{name}.{key}"), "must not be 0"))
                })
            }
        }
    }
}

/// The checks that modules contribute.
#[derive(Debug, Default)]
pub struct HealthChecks {
    checks: Vec<Check>,
    services: Arc<OnceLock<Container>>,
}

/// How a module contributes a check.
pub trait HealthApp {
    /// Adds a check.
    fn health_check(&mut self, check: Check);

    /// Adds a check of something that lives in the container. It has not looked before the app runs.
    ///
    /// ```
    /// use runtime_health::{HealthApp, Outcome};
    /// use runtime_kernel::app::{App, CLOCK};
    /// use runtime_kernel::config::Config;
    ///
    /// let mut app = App::new(Config::default());
    /// app.health_check_with("clock", |check| check.optional(), |services| async move {
    ///     Outcome::from(services.get(CLOCK).await)
    /// });
    /// ```
    fn health_check_with<F, W>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        settings: impl FnOnce(Check) -> Check,
        check: F,
    ) where
        F: Fn(Container) -> W + Send + Sync + 'static,
        W: Future<Output = Outcome> + Send + 'static;
}

impl HealthApp for App {
    fn health_check(&mut self, check: Check) {
        self.contribute::<HealthChecks>().checks.push(check);
    }

    fn health_check_with<F, W>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        settings: impl FnOnce(Check) -> Check,
        check: F,
    ) where
        F: Fn(Container) -> W + Send + Sync + 'static,
        W: Future<Output = Outcome> + Send + 'static,
    {
        let services = Arc::clone(&self.contribute::<HealthChecks>().services);
        let check = Arc::new(check);
        let check = Check::from_fn(name, move || {
            let asked = services.get().cloned().map(|services| check(services));
            async move {
                match asked {
                    Some(outcome) => outcome.await,
                    None => Outcome::unhealthy("the app does not run yet"),
                }
            }
        });
        self.health_check(settings(check));
    }
}

/// Puts [`HEALTH`] into the container, looks at every contributed check in the background, and fails readiness as the
/// first thing of a shutdown.
#[derive(Clone, Copy, Debug, Default)]
pub struct HealthModule;

impl Module for HealthModule {
    fn name(&self) -> &'static str {
        "health"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.section::<HealthConfig>()?;
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: HealthConfig = app.section()?;
        let HealthChecks { checks, services } = app.take_contribution();
        let mut builder = HealthRegistry::builder().config(config).clock(app.shared_clock());
        #[cfg(feature = "metrics")]
        {
            use runtime_telemetry::MetricsApp;
            builder = builder.metrics(&app.metrics());
        }
        for check in checks {
            builder = builder.check(check);
        }
        let registry = builder.build().map_err(Error::from)?;
        app.services().value(HEALTH, registry.clone());
        let leaving = registry.clone();
        app.shutdown().hook(Stage::Unready, "health", Duration::from_secs(1), move || async move {
            leaving.set_unready("shutting down");
            Ok(())
        });
        app.service(HealthService { registry, services });
        Ok(())
    }
}

struct HealthService {
    registry: HealthRegistry,
    services: Arc<OnceLock<Container>>,
}

#[async_trait]
impl Service for HealthService {
    fn name(&self) -> &'static str {
        "health"
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        // Set already when the service was started again: it is the same container.
        let _ = self.services.set(run.services);
        self.registry.run(run.stop.stopped()).await;
        Ok(())
    }
}
