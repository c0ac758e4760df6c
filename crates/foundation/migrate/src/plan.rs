//! What has been applied, what is pending, and what stands in the way.

use std::collections::HashMap;
use std::time::Duration;

use runtime_db::Dialect;
use serde::Serialize;

use crate::error::MigrateError;
use crate::history::Row;
use crate::migration::{Migration, MigrationSet};
use crate::migrator::{MigrateOptions, Unknown};

/// A migration that would be applied next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Planned {
    /// Whose.
    pub module: &'static str,
    /// Which.
    pub version: u32,
    /// Its name.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
    /// Whether they run inside a transaction.
    pub transactional: bool,
    /// The checksum that will be stored.
    pub checksum: String,
}

/// A migration that was applied just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Applied {
    /// Whose.
    pub module: &'static str,
    /// Which.
    pub version: u32,
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Where one migration stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Whose.
    pub module: String,
    /// Which.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// When it was applied, in RFC 3339.
    pub applied_at: Option<String>,
    /// How long that took, in milliseconds.
    pub duration_ms: Option<i64>,
}

/// Where a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Applied, and unchanged since.
    Applied,
    /// To be applied.
    Pending,
    /// To be applied although a later one has been.
    OutOfOrder,
    /// Applied, then edited in the program.
    Changed,
    /// Applied by another program or version.
    Unknown,
}

/// Refuses sets in which an order cannot be seen.
pub(crate) fn check(sets: &[MigrationSet]) -> Result<(), MigrateError> {
    let mut modules = std::collections::HashSet::new();
    for set in sets {
        let wrong = |problem: String| Err(MigrateError::Set { module: set.module.to_owned(), problem });
        if !modules.insert(set.module) {
            return wrong("there are two sets of this module".to_owned());
        }
        let mut last = 0;
        for migration in set.migrations {
            if migration.version <= last {
                return wrong(format!("version {} does not come after {last}", migration.version));
            }
            last = migration.version;
        }
    }
    Ok(())
}

/// Every migration of the sets and of the table, module by module.
pub(crate) fn status(sets: &[MigrationSet], rows: &[Row], dialect: Dialect) -> Vec<Status> {
    let applied: HashMap<_, _> = rows.iter().map(|row| ((row.module.as_str(), row.version), row)).collect();
    let mut all = Vec::new();
    for set in sets {
        let last = last_applied(set, rows);
        for migration in set.migrations {
            let row = applied.get(&(set.module, i64::from(migration.version)));
            let state = match row {
                Some(row) if row.checksum == migration.checksum(dialect) => State::Applied,
                Some(_) => State::Changed,
                None if i64::from(migration.version) < last => State::OutOfOrder,
                None => State::Pending,
            };
            all.push(Status {
                module: set.module.to_owned(),
                version: migration.version.into(),
                name: migration.name.to_owned(),
                state,
                applied_at: row.map(|row| row.applied_at.clone()),
                duration_ms: row.map(|row| row.duration_ms),
            });
        }
    }
    all.extend(rows.iter().filter(|row| !knows(sets, row)).map(|row| Status {
        module: row.module.clone(),
        version: row.version,
        name: row.name.clone(),
        state: State::Unknown,
        applied_at: Some(row.applied_at.clone()),
        duration_ms: Some(row.duration_ms),
    }));
    all
}

/// What is to be applied, or why it must not be.
pub(crate) fn pending(
    sets: &[MigrationSet],
    rows: &[Row],
    dialect: Dialect,
    options: &MigrateOptions,
) -> Result<Vec<Planned>, MigrateError> {
    for row in rows.iter().filter(|row| !knows(sets, row)) {
        let foreign = !sets.iter().any(|set| set.module == row.module);
        if options.unknown == Unknown::Refuse && !foreign {
            return Err(MigrateError::Unknown {
                module: row.module.clone(),
                version: row.version,
                name: row.name.clone(),
            });
        }
        tracing::warn!(module = %row.module, version = row.version, "the database has a migration this program does not know");
    }
    let mut pending = Vec::new();
    for set in sets {
        let last = last_applied(set, rows);
        for migration in set.migrations {
            match rows.iter().find(|row| row.is(set.module, migration.version)) {
                Some(row) if row.checksum == migration.checksum(dialect) => {}
                Some(row) => return Err(changed(set, migration, row)),
                None if i64::from(migration.version) < last && !options.out_of_order => {
                    return Err(MigrateError::OutOfOrder {
                        module: set.module.to_owned(),
                        version: migration.version,
                        name: migration.name.to_owned(),
                        after: u32::try_from(last).unwrap_or(u32::MAX),
                    });
                }
                None => pending.push(Planned {
                    module: set.module,
                    version: migration.version,
                    name: migration.name,
                    sql: migration.sql(dialect),
                    transactional: migration.transactional || dialect == Dialect::Sqlite,
                    checksum: migration.checksum(dialect),
                }),
            }
        }
    }
    Ok(pending)
}

fn changed(set: &MigrationSet, migration: &Migration, row: &Row) -> MigrateError {
    MigrateError::Changed {
        module: set.module.to_owned(),
        version: migration.version,
        name: migration.name.to_owned(),
        applied_at: row.applied_at.clone(),
    }
}

/// The last version applied of those this program knows.
fn last_applied(set: &MigrationSet, rows: &[Row]) -> i64 {
    let known = |row: &&Row| set.migrations.iter().any(|migration| row.is(set.module, migration.version));
    rows.iter().filter(known).map(|row| row.version).max().unwrap_or_default()
}

fn knows(sets: &[MigrationSet], row: &Row) -> bool {
    sets.iter().any(|set| set.migrations.iter().any(|migration| row.is(set.module, migration.version)))
}
