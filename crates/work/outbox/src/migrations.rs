//! The tables of outbox and inbox.

use runtime_migrate::{Migration, MigrationSet};

/// The schema, for a [`runtime_migrate::Migrator`]. Times are microseconds since the epoch.
pub const SET: MigrationSet = MigrationSet { module: "outbox", migrations: &[OUTBOX] };

const OUTBOX: Migration = Migration::new(
    1,
    "create_outbox",
    include_str!("../migrations/sqlite/0001_outbox.sql"),
    include_str!("../migrations/postgres/0001_outbox.sql"),
);
