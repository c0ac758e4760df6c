//! The tables of answers and of how far projections have come.

use runtime_migrate::{Migration, MigrationSet};

/// The schema, for a [`runtime_migrate::Migrator`]. Times are microseconds since the epoch.
pub const SET: MigrationSet = MigrationSet { module: "cqrs", migrations: &[CQRS] };

const CQRS: Migration = Migration::new(
    1,
    "create_cqrs",
    include_str!("../migrations/sqlite/0001_cqrs.sql"),
    include_str!("../migrations/postgres/0001_cqrs.sql"),
);
