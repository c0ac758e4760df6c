//! The tables workflows rest in.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of workflows, for a [`runtime_migrate::Migrator`]. Steps that were released never change.
pub const SET: MigrationSet =
    MigrationSet { module: "workflow", migrations: &[Migration::new(1, "create_workflows", TABLES, TABLES)] };

/// The schema of both databases; times are microseconds since the epoch. That an entity has one running instance, and
/// a definition one active version, the database itself sees to.
const TABLES: &str = "
CREATE TABLE workflow_definitions (
  tenant TEXT NOT NULL,
  code TEXT NOT NULL,
  number BIGINT NOT NULL,
  state TEXT NOT NULL,
  entity_type TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (tenant, code, number)
);
CREATE UNIQUE INDEX workflow_definitions_active ON workflow_definitions (tenant, code) WHERE state = 'active';
CREATE TABLE workflow_instances (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  revision BIGINT NOT NULL,
  status TEXT NOT NULL,
  running BIGINT NOT NULL,
  parked BIGINT NOT NULL,
  entity_type TEXT NOT NULL,
  entity_id TEXT NOT NULL,
  requester TEXT NOT NULL,
  next_at BIGINT,
  definition TEXT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX workflow_instances_running ON workflow_instances (tenant, entity_type, entity_id)
  WHERE running = 1;
CREATE INDEX workflow_instances_due ON workflow_instances (next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX workflow_instances_parked ON workflow_instances (tenant, id) WHERE parked = 1;
CREATE TABLE workflow_events (
  tenant TEXT NOT NULL,
  instance TEXT NOT NULL,
  number BIGINT NOT NULL,
  at BIGINT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (tenant, instance, number)
);
CREATE TABLE workflow_actions (
  tenant TEXT NOT NULL,
  instance TEXT NOT NULL,
  action TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  PRIMARY KEY (tenant, instance, action)
);
CREATE TABLE workflow_tasks (
  tenant TEXT NOT NULL,
  instance TEXT NOT NULL,
  step TEXT NOT NULL,
  seat BIGINT NOT NULL,
  holder TEXT NOT NULL,
  weight BIGINT NOT NULL,
  opened_at BIGINT NOT NULL,
  warn_at BIGINT,
  due_at BIGINT,
  data TEXT NOT NULL,
  PRIMARY KEY (tenant, instance, step, seat)
);
CREATE INDEX workflow_tasks_holder ON workflow_tasks (tenant, holder);
";
