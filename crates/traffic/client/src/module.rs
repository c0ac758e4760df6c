//! Puts the client into an app.

use std::sync::Arc;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;

use crate::client::Client;
use crate::config::ClientConfig;

/// The app's HTTP client.
pub const HTTP_CLIENT: Token<Client> = Token::new("client.http");

/// Reads the section `client` and provides [`HTTP_CLIENT`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientModule;

impl Module for ClientModule {
    fn name(&self) -> &'static str {
        "client"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config = app.section::<ClientConfig>()?;
        let client = Client::new(config, app.shared_clock())
            .map_err(|error| SetupError::Module { module: "client", message: error.to_string() })?;
        app.services().value(HTTP_CLIENT, Arc::new(client));
        Ok(())
    }
}
