//! The table quotas are kept in.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of quotas, for a [`runtime_migrate::Migrator`]. Steps that were released never change.
pub const SET: MigrationSet = MigrationSet { module: "limits", migrations: &[QUOTA] };

const QUOTA: Migration = Migration::new(
    1,
    "quota",
    include_str!("../../migrations/sqlite/0001_quota.sql"),
    include_str!("../../migrations/postgres/0001_quota.sql"),
);
