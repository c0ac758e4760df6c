//! Keeps an app's configuration in step with its files.

use std::sync::Arc;

use async_trait::async_trait;

use super::WatchOptions;
use crate::Error;
use crate::app::{App, CONFIG, Importance, Module, Run, Service, SetupError};

/// Adds a service, in every mode, that reloads the configuration when a file changes and on SIGHUP.
///
/// Without it an app reads its configuration once.
#[derive(Clone, Debug, Default)]
pub struct ReloadModule {
    options: WatchOptions,
}

impl ReloadModule {
    /// Watches as the options say.
    pub const fn new(options: WatchOptions) -> Self {
        Self { options }
    }
}

impl Module for ReloadModule {
    fn name(&self) -> &'static str {
        "config.reload"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.service(Reloading { options: self.options.clone() });
        Ok(())
    }
}

struct Reloading {
    options: WatchOptions,
}

#[async_trait]
impl Service for Reloading {
    fn name(&self) -> &'static str {
        "config.reload"
    }

    fn importance(&self) -> Importance {
        Importance::Optional
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let config = run.services.get(CONFIG).await?;
        config.watch(self.options.clone()).run(run.stop.stopped()).await;
        Ok(())
    }
}
