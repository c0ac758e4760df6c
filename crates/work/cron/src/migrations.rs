//! The tables: schedules, their ticks, and who leads.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of schedules, for a [`runtime_migrate::Migrator`]. Steps that were released never change.
pub const SET: MigrationSet =
    MigrationSet { module: "cron", migrations: &[Migration::new(1, "create_cron", TABLES, TABLES)] };

/// The schema of both databases; times are microseconds since the epoch.
const TABLES: &str = "
CREATE TABLE cron_schedules (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  schedule TEXT NOT NULL,
  action TEXT NOT NULL,
  revision BIGINT NOT NULL,
  paused BIGINT NOT NULL,
  origin TEXT NOT NULL,
  context TEXT NOT NULL,
  next_at BIGINT,
  PRIMARY KEY (tenant, name)
);
CREATE INDEX cron_schedules_due ON cron_schedules (next_at) WHERE paused = 0;
CREATE TABLE cron_ticks (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  fire_time BIGINT NOT NULL,
  state TEXT NOT NULL,
  due_at BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  fence BIGINT NOT NULL,
  manual BIGINT NOT NULL,
  lease_until BIGINT,
  fired_at BIGINT,
  finished_at BIGINT,
  note TEXT,
  PRIMARY KEY (tenant, name, fire_time)
);
CREATE INDEX cron_ticks_pending ON cron_ticks (due_at) WHERE state = 'pending';
CREATE INDEX cron_ticks_running ON cron_ticks (lease_until) WHERE state = 'running';
CREATE TABLE cron_leader (
  id BIGINT PRIMARY KEY,
  holder TEXT NOT NULL,
  fence BIGINT NOT NULL,
  until BIGINT NOT NULL
);
";
