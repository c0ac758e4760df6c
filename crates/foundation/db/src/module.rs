//! Wires the database into an `App`.

use std::time::Duration;

use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::lifecycle::Stage;

use crate::{Database, DbConfig, DbError};

/// The process's database.
pub const DB: Token<Database> = Token::new("adapter.db");

impl Section for DbConfig {
    const PATH: &'static str = "db";
    const LOCKED: &'static [&'static str] = &["url", "admin_url"];
    const SECRET: &'static [&'static str] = &["url", "admin_url"];

    fn validate(&self) -> Result<(), Invalid> {
        self.problem().map_or(Ok(()), |(key, problem)| Err(Invalid::new(key, problem)))
    }
}

/// Reads the section `db`, registers [`DB`] (connected when first asked for), and closes it at shutdown.
#[derive(Clone, Debug, Default)]
pub struct DbModule {
    url: Option<String>,
}

impl DbModule {
    /// A module that takes everything from the configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// The URL to use when `db.url` is empty, as the ready-made server names its own file.
    #[must_use]
    pub fn default_url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }
}

impl Module for DbModule {
    fn name(&self) -> &'static str {
        "db"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let mut config: DbConfig = app.section()?;
        if config.url.is_empty()
            && let Some(url) = &self.url
        {
            config.url.clone_from(url);
        }
        let clock = app.shared_clock();
        // Closing waits for connections in use, so it is the close of the container's one value.
        let opened = std::sync::Arc::new(std::sync::OnceLock::<Database>::new());
        let slot = std::sync::Arc::clone(&opened);
        app.services().singleton(DB, (), move |()| {
            let (config, clock, slot) = (config.clone(), clock.clone(), slot.clone());
            async move {
                let db = Database::connect(&config, clock).await?;
                let _ = slot.set(db.clone());
                Ok::<_, DbError>(db)
            }
        });
        app.shutdown().hook(Stage::Close, "db", Duration::from_secs(5), move || {
            let db = opened.get().cloned();
            async move {
                if let Some(db) = db {
                    db.close().await;
                }
                Ok(())
            }
        });
        Ok(())
    }
}
