//! The tables the keys rest in, as numbered statements for a migration runner.

use runtime_db::Dialect;

/// One step: its number, its name, and the statements of one dialect.
pub type Step = (u32, &'static str, &'static str);

/// The steps for a dialect, in order. Steps that were released never change.
pub const fn steps(dialect: Dialect) -> &'static [Step] {
    match dialect {
        Dialect::Sqlite => &[(1, "api_keys", include_str!("../migrations/sqlite/0001_api_keys.sql"))],
        Dialect::Postgres => &[(1, "api_keys", include_str!("../migrations/postgres/0001_api_keys.sql"))],
    }
}
