//! Wires migrations into an `App`.

use std::sync::{Arc, Mutex, PoisonError};

use runtime_db::{DB, Database, DbConfig, Dialect, Migrate};
use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::container::Token;

use crate::migration::MigrationSet;
use crate::migrator::{MigrateOptions, Migrator};

/// The process's migrator, over the sets of every module.
pub const MIGRATOR: Token<Migrator> = Token::new("migrate.migrator");

/// The sets of all modules: the contribution behind [`MigrateApp::migrations`]. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Migrations(Arc<Mutex<Vec<MigrationSet>>>);

impl Migrations {
    /// Adds a module's set.
    pub fn add(&self, set: MigrationSet) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(set);
    }

    /// The sets, in the order they were added.
    pub fn sets(&self) -> Vec<MigrationSet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lets a module add its migrations to the app.
pub trait MigrateApp {
    /// Adds a module's set; sets are applied in the order they were added.
    fn migrations(&mut self, set: MigrationSet);
}

impl MigrateApp for App {
    fn migrations(&mut self, set: MigrationSet) {
        self.contribute::<Migrations>().add(set);
    }
}

/// Registers [`MIGRATOR`] and, before any service starts, does what `db.migrate` says: `auto`, `check` or `off`.
///
/// On Postgres it works as `db.admin_url` when that is set. Needs `DbModule`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MigrateModule {
    options: MigrateOptions,
}

impl MigrateModule {
    /// With the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// With other options.
    #[must_use]
    pub fn options(mut self, options: MigrateOptions) -> Self {
        self.options = options;
        self
    }
}

impl Module for MigrateModule {
    fn name(&self) -> &'static str {
        "migrate"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: DbConfig = app.section()?;
        let mode = config.migrate;
        // Modules registered later add to the same list.
        let sets = app.contribute::<Migrations>().clone();
        let (clock, options) = (app.shared_clock(), self.options);
        app.services().singleton(MIGRATOR, (DB,), move |(db,): (Arc<Database>,)| {
            let (config, clock, sets) = (config.clone(), clock.clone(), sets.sets());
            async move {
                let mut db = Database::clone(&db);
                if db.dialect() == Dialect::Postgres && !config.admin_url.is_empty() {
                    let mut admin = config;
                    admin.url = std::mem::take(&mut admin.admin_url);
                    (admin.max_connections, admin.min_connections) = (2, 0);
                    db = Database::connect(&admin, clock).await?;
                }
                Ok::<_, Error>(Migrator::new(db, sets, options)?)
            }
        });
        if mode != Migrate::Off {
            app.on_start("migrate", move |container| async move {
                let migrator = container.get(MIGRATOR).await?;
                match mode {
                    Migrate::Check => migrator.check().await?,
                    _ => drop(migrator.run().await?),
                }
                Ok(())
            });
        }
        Ok(())
    }
}
