//! The tables rollouts rest in.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of rollouts, for a [`runtime_migrate::Migrator`]. Steps that were released never change.
pub const SET: MigrationSet = MigrationSet { module: "rollout", migrations: &[ROLLOUTS] };

const ROLLOUTS: Migration = Migration::new(
    1,
    "rollouts",
    include_str!("../migrations/sqlite/0001_rollouts.sql"),
    include_str!("../migrations/postgres/0001_rollouts.sql"),
);
