//! Puts the client into an app.

use std::sync::Arc;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, SharedClock};
use runtime_resilience::{PIPELINES, Pipelines};

use crate::client::Client;
use crate::config::ClientConfig;
use crate::error::ClientError;

/// The app's HTTP client.
pub const HTTP_CLIENT: Token<Client> = Token::new("client.http");

/// Reads the section `client` and provides [`HTTP_CLIENT`], whose calls are guarded by the app's pipelines where
/// `client.pipelines` names one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientModule;

impl Module for ClientModule {
    fn name(&self) -> &'static str {
        "client"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config = app.section::<ClientConfig>()?;
        if config.pipelines.is_empty() {
            let client = Client::new(config, app.shared_clock())
                .map_err(|error| SetupError::Module { module: "client", message: error.to_string() })?;
            app.services().value(HTTP_CLIENT, Arc::new(client));
            return Ok(());
        }
        let clock = app.shared_clock();
        app.services().singleton(HTTP_CLIENT, (PIPELINES,), move |(pipelines,)| {
            std::future::ready(guarded(&config, &clock, &pipelines).map(Arc::new).map_err(Error::from))
        });
        Ok(())
    }
}

fn guarded(config: &ClientConfig, clock: &SharedClock, pipelines: &Pipelines) -> Result<Client, ClientError> {
    let mut builder = Client::builder(config.clone(), Arc::clone(clock));
    for (host, name) in &config.pipelines {
        let pipeline = pipelines.get(name).ok_or_else(|| ClientError::Config {
            key: "pipelines",
            message: format!("names no pipeline of `resilience.pipeline`: `{name}`"),
        })?;
        builder = builder.pipeline(host.as_str(), pipeline.clone());
    }
    builder.build()
}
