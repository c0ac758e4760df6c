//! Puts the client into an app.

use std::sync::Arc;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, SharedClock};
use runtime_resilience::{PIPELINES, Pipeline};

use crate::client::Client;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::targets::Targets;

/// The app's HTTP client.
pub const HTTP_CLIENT: Token<Client> = Token::new("client.http");

/// Endpoints behind hosts, which modules contribute to the app's client.
#[derive(Debug, Default)]
pub struct ClientTargets(Vec<(String, Arc<dyn Targets>)>);

impl ClientTargets {
    /// Puts endpoints behind a host, as [`ClientBuilder::targets`](crate::ClientBuilder::targets) does.
    pub fn add(&mut self, host: impl Into<String>, targets: Arc<dyn Targets>) {
        self.0.push((host.into(), targets));
    }
}

/// Reads the section `client` and provides [`HTTP_CLIENT`], whose calls are guarded by the app's pipelines where
/// `client.pipelines` names one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientModule;

impl Module for ClientModule {
    fn name(&self) -> &'static str {
        "client"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.section::<ClientConfig>().map(drop)
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config = app.section::<ClientConfig>()?;
        let ClientTargets(targets) = app.take_contribution();
        if config.pipelines.is_empty() {
            let client = guarded(&config, &app.shared_clock(), &targets, |_| None)
                .map_err(|error| SetupError::Module { module: "client", message: error.to_string() })?;
            app.services().value(HTTP_CLIENT, Arc::new(client));
            return Ok(());
        }
        let clock = app.shared_clock();
        app.services().singleton(HTTP_CLIENT, (PIPELINES,), move |(pipelines,)| {
            std::future::ready(
                guarded(&config, &clock, &targets, |name| pipelines.get(name).cloned())
                    .map(Arc::new)
                    .map_err(Error::from),
            )
        });
        Ok(())
    }
}

fn guarded(
    config: &ClientConfig,
    clock: &SharedClock,
    targets: &[(String, Arc<dyn Targets>)],
    pipelines: impl Fn(&str) -> Option<Pipeline>,
) -> Result<Client, ClientError> {
    let mut builder = Client::builder(config.clone(), Arc::clone(clock));
    for (host, name) in &config.pipelines {
        let pipeline = pipelines(name).ok_or_else(|| ClientError::Config {
            key: "pipelines",
            message: format!("names no pipeline of `resilience.pipeline`: `{name}`"),
        })?;
        builder = builder.pipeline(host.as_str(), pipeline);
    }
    for (host, targets) in targets {
        builder = builder.targets(host.as_str(), Arc::clone(targets));
    }
    builder.build()
}
