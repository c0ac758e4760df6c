#![doc = include_str!("../README.md")]

mod error;
mod history;
mod lock;
mod migration;
mod migrator;
#[cfg(feature = "module")]
mod module;
mod plan;

pub use error::MigrateError;
pub use migration::{Migration, MigrationSet};
pub use migrator::{MigrateOptions, Migrator, Unknown};
#[cfg(feature = "module")]
pub use module::{MIGRATOR, MigrateApp, MigrateModule, Migrations};
pub use plan::{Applied, Planned, State, Status};
