//! The table the keys rest in.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of API keys, for a [`runtime_migrate::Migrator`]. Steps that were released never change.
pub const SET: MigrationSet = MigrationSet { module: "apikey", migrations: &[API_KEYS] };

const API_KEYS: Migration = Migration::new(
    1,
    "api_keys",
    include_str!("../migrations/sqlite/0001_api_keys.sql"),
    include_str!("../migrations/postgres/0001_api_keys.sql"),
);
