#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(unused, clippy::unused_async, reason = "without a backend there is nothing to migrate")
)]

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
