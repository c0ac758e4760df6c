//! The tables of the event log: what was published, in which order, and who has read how far.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of the event log, for a [`runtime_migrate::Migrator`]. Times are microseconds since the epoch.
pub const SET: MigrationSet = MigrationSet { module: "events", migrations: &[EVENTS] };

const EVENTS: Migration = Migration::new(
    1,
    "create_events",
    include_str!("../migrations/sqlite/0001_events.sql"),
    include_str!("../migrations/postgres/0001_events.sql"),
);
