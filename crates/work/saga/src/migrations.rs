//! The tables sagas rest in.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of sagas, for a [`runtime_migrate::Migrator`].
pub const SET: MigrationSet = MigrationSet {
    module: "saga",
    migrations: &[
        Migration::new(1, "create_sagas", TABLES, TABLES),
        Migration::new(2, "index_parked_sagas", PARKED, PARKED),
    ],
};

/// Those that wait for an operator are counted again and again, among very many that do not.
const PARKED: &str = "CREATE INDEX saga_instances_parked ON saga_instances (id) WHERE status = 'parked';";

/// The schema of both databases; times are microseconds since the epoch. A lease is a due time: when it runs out the saga
/// is due like any other. A journal has one writer, which its key and the fence of the claim see to.
const TABLES: &str = "
CREATE TABLE saga_instances (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  unique_key TEXT,
  status TEXT NOT NULL,
  due_at BIGINT,
  fence BIGINT NOT NULL,
  pokes BIGINT NOT NULL,
  worker TEXT,
  ended_at BIGINT,
  parked TEXT,
  cancel TEXT,
  failure TEXT,
  output TEXT,
  head TEXT NOT NULL
);
CREATE UNIQUE INDEX saga_instances_key ON saga_instances (tenant, name, unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX saga_instances_due ON saga_instances (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX saga_instances_list ON saga_instances (tenant, status, id);
CREATE INDEX saga_instances_ended ON saga_instances (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE saga_journal (
  saga TEXT NOT NULL,
  seq BIGINT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (saga, seq)
);
CREATE TABLE saga_signals (
  saga TEXT NOT NULL,
  number BIGINT NOT NULL,
  signal_id TEXT,
  data TEXT NOT NULL,
  PRIMARY KEY (saga, number)
);
CREATE UNIQUE INDEX saga_signals_id ON saga_signals (saga, signal_id) WHERE signal_id IS NOT NULL;
";
