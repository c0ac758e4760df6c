//! A migration: a number, a name and the SQL of each dialect.

use runtime_db::Dialect;
use sha2::{Digest, Sha256};

/// One step of a module's schema. Once released it is never edited; a correction is a further step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// Its number within the module, from 1, each larger than the one before.
    pub version: u32,
    /// A short name for people: `create_jobs`.
    pub name: &'static str,
    /// The statements for SQLite.
    pub sqlite: &'static str,
    /// The statements for Postgres.
    pub postgres: &'static str,
    /// Whether Postgres runs it inside a transaction. SQLite always does.
    pub transactional: bool,
}

impl Migration {
    /// A step that is applied whole or not at all.
    pub const fn new(version: u32, name: &'static str, sqlite: &'static str, postgres: &'static str) -> Self {
        Self { version, name, sqlite, postgres, transactional: true }
    }

    /// The same, run by Postgres outside a transaction, as `CREATE INDEX CONCURRENTLY` demands. It must be one
    /// statement, and one that may be repeated: when it fails half-way nothing can undo it.
    #[must_use]
    pub const fn outside_transaction(mut self) -> Self {
        self.transactional = false;
        self
    }

    /// The statements for a dialect.
    pub const fn sql(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        }
    }

    /// The SHA-256 of the statements in hexadecimal. Line ends and white space at line ends do not count, so that
    /// a checkout on another system is the same migration.
    pub fn checksum(&self, dialect: Dialect) -> String {
        let mut hash = Sha256::new();
        for line in self.sql(dialect).trim().lines() {
            hash.update(line.trim_end().as_bytes());
            hash.update(b"\n");
        }
        hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
            text
        })
    }
}

/// The migrations of one module, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationSet {
    /// The module: `"jobs"`. Versions are counted per module.
    pub module: &'static str,
    /// Its steps.
    pub migrations: &'static [Migration],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_every_edit_but_line_ends() {
        let sum = |sql: &'static str| Migration::new(1, "x", sql, "").checksum(Dialect::Sqlite);
        let base = sum("CREATE TABLE a (id INTEGER);\nCREATE TABLE b (id INTEGER);\n");
        assert_eq!(base.len(), 64);
        assert_eq!(base, sum("CREATE TABLE a (id INTEGER);  \r\nCREATE TABLE b (id INTEGER);"));
        for other in [
            "",
            "CREATE TABLE a (id INTEGER);\n\nCREATE TABLE b (id INTEGER);",
            "CREATE TABLE a (id  INTEGER);\nCREATE TABLE b (id INTEGER);",
        ] {
            assert_ne!(base, sum(other), "{other}");
        }
    }
}
