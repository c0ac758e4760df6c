//! Puts discovery into an app.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use runtime_client::ClientTargets;
#[cfg(any(feature = "consul", feature = "etcd"))]
use runtime_client::{Client, ClientConfig, Guard};
use runtime_health::{Check, HealthApp, Outcome as Health};
use runtime_kernel::app::{App, Module, Run, Service as Background, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::Stage;
use runtime_kernel::{Error, SharedClock};
use runtime_telemetry::{MetricsApp, keys};

use crate::balance::Balancer;
use crate::config::{DiscoveryConfig, ServiceConfig, SourceConfig};
use crate::error::DiscoveryError;
use crate::service::{Service, Watching};
use crate::source::{Env, Fixed, Lines, Source};

/// The app's services.
pub const SERVICES: Token<Services> = Token::new("discovery.services");

/// The services of an app, by name.
#[derive(Clone, Debug, Default)]
pub struct Services(BTreeMap<String, (Service, Balancer)>);

impl Services {
    /// The balancer of a service.
    ///
    /// # Errors
    /// [`DiscoveryError::Unknown`].
    pub fn balancer(&self, name: &str) -> Result<&Balancer, DiscoveryError> {
        self.get(name).map(|(_, balancer)| balancer)
    }

    /// A service.
    ///
    /// # Errors
    /// [`DiscoveryError::Unknown`].
    pub fn service(&self, name: &str) -> Result<&Service, DiscoveryError> {
        self.get(name).map(|(service, _)| service)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Service, &Balancer)> {
        self.0.values().map(|(service, balancer)| (service, balancer))
    }

    fn get(&self, name: &str) -> Result<&(Service, Balancer), DiscoveryError> {
        self.0.get(name).ok_or_else(|| DiscoveryError::Unknown(name.to_owned()))
    }
}

impl Section for DiscoveryConfig {
    const PATH: &'static str = "discovery";

    fn validate(&self) -> Result<(), Invalid> {
        self.check().map_err(|error| match error {
            DiscoveryError::Config { key, message } => Invalid::new(key, message),
            other => Invalid::new("", other.to_string()),
        })
    }
}

/// Reads the section `discovery`, watches its services in every mode, provides [`SERVICES`], and puts each behind
/// `<name>.service` in the app's HTTP client. Health is degraded while a source cannot be asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscoveryModule;

impl Module for DiscoveryModule {
    fn name(&self) -> &'static str {
        "discovery"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: DiscoveryConfig = app.section()?;
        let clock = app.shared_clock();
        let mut services = BTreeMap::new();
        let mut watching = Vec::new();
        for (name, config) in config.services {
            let balancer = Balancer::with_clock(config.balance, config.outliers, Arc::clone(&clock));
            let balancer = balancer.map_err(|error| fault(&error))?;
            let source = source(&config, &clock).map_err(|error| fault(&error))?;
            let (service, watch) = Service::new(name.as_str(), source, Arc::clone(&clock));
            let targets = Arc::new(balancer.clone());
            app.contribute::<ClientTargets>().add(format!("{name}.service"), targets);
            watching.push((watch, service.clone(), balancer.clone()));
            services.insert(name, (service, balancer));
        }
        let services = Services(services);
        if !watching.is_empty() {
            app.health_check(Check::from_fn("discovery", health(&services)).optional());
            metrics(app, &services)?;
            app.service(Watch { watching: std::sync::Mutex::new(watching) });
        }
        app.services().value(SERVICES, Arc::new(services));
        Ok(())
    }
}

fn fault(error: &dyn std::fmt::Display) -> SetupError {
    SetupError::Module { module: "discovery", message: error.to_string() }
}

fn health(services: &Services) -> impl Fn() -> std::future::Ready<Health> + use<> {
    let services = services.clone();
    move || {
        let stale = services
            .iter()
            .filter_map(|(service, _)| Some((service.name().to_owned(), service.known().stale?.to_string())));
        let stale: Vec<_> = stale.collect();
        let start = match stale.len() {
            0 => Health::healthy(),
            1 => Health::degraded("a service's endpoints cannot be looked up"),
            many => Health::degraded(format!("the endpoints of {many} services cannot be looked up")),
        };
        std::future::ready(stale.into_iter().fold(start, |health, (name, why)| health.detail(name, why)))
    }
}

fn metrics(app: &mut App, services: &Services) -> Result<(), SetupError> {
    let registry = app.metrics();
    let endpoints = registry
        .gauge(keys::DISCOVERY_ENDPOINTS, "Endpoints of a service, by whether they are called.")
        .map_err(|error| fault(&error))?;
    let services = services.clone();
    registry.collector(move || {
        for (service, balancer) in services.iter() {
            let (present, out) = balancer.counts();
            for (state, count) in [("in", present - out), ("out", out)] {
                let labels = [("service", service.name()), ("state", state)];
                endpoints.with(&labels).set(f64::from(count));
            }
        }
    });
    Ok(())
}

fn source(config: &ServiceConfig, clock: &SharedClock) -> Result<Box<dyn Source>, DiscoveryError> {
    Ok(match config.source.clone() {
        SourceConfig::Fixed(endpoints) => Box::new(Fixed(endpoints)),
        SourceConfig::Env(name) => Box::new(Env(name)),
        SourceConfig::File { path, every } => Box::new(Lines::new(path, Arc::clone(clock)).every(every)),
        #[cfg(feature = "dns")]
        SourceConfig::Dns { name, port, server } => {
            let dns = match port {
                Some(port) => crate::Dns::addresses(name, port, Arc::clone(clock))?,
                None => crate::Dns::services(name, Arc::clone(clock))?,
            };
            Box::new(match server {
                Some(server) => dns.server(server)?,
                None => dns,
            })
        }
        #[cfg(feature = "kube")]
        SourceConfig::Kubernetes { namespace, service, port } => {
            Box::new(crate::source::InCluster { namespace, service, port })
        }
        #[cfg(feature = "consul")]
        SourceConfig::Consul { url, service, tag, token } => {
            let consul = crate::Consul::new(trusted(clock)?, &url, service, Arc::clone(clock));
            let consul = tag.into_iter().fold(consul, crate::Consul::tag);
            Box::new(token.into_iter().fold(consul, crate::Consul::token))
        }
        #[cfg(feature = "etcd")]
        SourceConfig::Etcd { url, prefix } => {
            Box::new(crate::Etcd::new(trusted(clock)?, &url, prefix, Arc::clone(clock)))
        }
        #[allow(unreachable_patterns, reason = "with every feature there is no other")]
        _ => {
            return Err(DiscoveryError::Config {
                key: "source".to_owned(),
                message: "needs a feature of runtime-discovery that is not enabled: `dns`, `kube`, `consul` or `etcd`"
                    .to_owned(),
            });
        }
    })
}

#[cfg(any(feature = "consul", feature = "etcd"))]
/// Calls what the operator's configuration names, wherever it is.
fn trusted(clock: &SharedClock) -> Result<Client, DiscoveryError> {
    let client = Client::builder(ClientConfig::default(), Arc::clone(clock)).guard(Guard::open()).build();
    client.map_err(|error| DiscoveryError::source("the HTTP client", error.to_string()))
}

struct Watch {
    watching: std::sync::Mutex<Vec<(Watching, Service, Balancer)>>,
}

#[async_trait]
impl Background for Watch {
    fn name(&self) -> &'static str {
        "discovery"
    }

    fn stops_at(&self) -> Stage {
        Stage::Flush
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let watching =
            std::mem::take(&mut *self.watching.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let mut tasks = tokio::task::JoinSet::new();
        for (watch, service, balancer) in watching {
            tasks.spawn(watch.run());
            tasks.spawn(async move { balancer.follow(service).await });
        }
        run.stop.stopped().await;
        // Dropped, they end.
        Ok(())
    }
}
