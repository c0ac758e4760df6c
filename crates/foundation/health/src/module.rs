//! Wires health checks into an `App`.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::{Container, Token};
use runtime_kernel::lifecycle::Stage;
use runtime_kernel::{Error, ErrorKind};

use crate::{Finding, HealthCheck, HealthChecks, HealthConfig, HealthError, HealthRegistry, check};

/// The process's health.
pub const HEALTH: Token<HealthRegistry> = Token::new("adapter.health");

impl Section for HealthConfig {
    const PATH: &'static str = "health";

    fn validate(&self) -> Result<(), Invalid> {
        match self.check() {
            Err(HealthError::Setting(field)) => Err(Invalid::new(field, "must not be 0")),
            _ => Ok(()),
        }
    }
}

/// What modules do with health while they register.
pub trait HealthApp {
    /// The checks the app will run, to add to.
    fn health_checks(&mut self) -> &mut HealthChecks;

    /// Adds a check: critical, unless the calls after it say otherwise.
    fn health_check(&mut self, check: impl HealthCheck) -> &mut HealthChecks {
        self.health_checks().add(check)
    }
}

impl HealthApp for App {
    fn health_checks(&mut self) -> &mut HealthChecks {
        self.contribute::<HealthChecks>()
    }
}

impl HealthChecks {
    /// Adds a check that needs services of the app: unhealthy until the app runs.
    pub fn add_with<F, W>(&mut self, name: impl Into<Cow<'static, str>>, look: F) -> &mut Self
    where
        F: Fn(Container) -> W + Send + Sync + 'static,
        W: Future<Output = Result<Finding, Error>> + Send + 'static,
    {
        let (services, look) = (self.services.clone(), Arc::new(look));
        self.add(check(name, move || {
            let (services, look) = (services.clone(), Arc::clone(&look));
            async move { look(services.get()?).await }
        }))
    }
}

/// The container while the checks are being run. Emptied at the end: a registry that lives in the container must not
/// keep it alive.
#[derive(Clone, Default)]
pub(crate) struct Bound(Arc<Mutex<Option<Container>>>);

impl Bound {
    fn get(&self) -> Result<Container, Error> {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        services
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "health.not_running", "the app is not running"))
    }

    fn set(&self, services: Option<Container>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = services;
    }
}

struct Unbind(Bound);

impl Drop for Unbind {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Collects the modules' [`HealthChecks`], registers [`HEALTH`], and runs the checks in every mode. Readiness fails as
/// soon as the shutdown reaches stage `Unready`.
///
/// Contributions are taken up in [`Module::finish`]: what a later module adds in its own `finish` is not seen.
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
        let checks = app.take_contribution::<HealthChecks>();
        let services = checks.services.clone();
        let unready = app.shutdown().signal(Stage::Unready);
        let registry = HealthRegistry::builder()
            .checks(checks)
            .config(config)
            .unready_when(move || unready.is_stopped())
            .build(app.shared_clock())
            .map_err(Error::from)?;
        let registry = Arc::new(registry);
        app.services().value(HEALTH, Arc::clone(&registry));
        app.service(Rounds { registry, services });
        Ok(())
    }
}

struct Rounds {
    registry: Arc<HealthRegistry>,
    services: Bound,
}

#[async_trait]
impl Service for Rounds {
    fn name(&self) -> &'static str {
        "health"
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        self.services.set(Some(run.services.clone()));
        let _unbind = Unbind(self.services.clone());
        self.registry.run(run.stop.stopped()).await;
        Ok(())
    }
}
