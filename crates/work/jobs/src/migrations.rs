//! The tables: a narrow hot one for what is unfinished, and what is written once apart from it.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of jobs, for a [`runtime_migrate::Migrator`].
pub const SET: MigrationSet =
    MigrationSet { module: "jobs", migrations: &[Migration::new(1, "create_jobs", TABLES, TABLES)] };

/// The schema of both databases; times are microseconds since the epoch.
const TABLES: &str = "
CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  priority BIGINT NOT NULL,
  running BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  max_attempts BIGINT NOT NULL,
  fence BIGINT NOT NULL,
  worker TEXT,
  lease_until BIGINT,
  cancel BIGINT NOT NULL
);
CREATE INDEX jobs_due ON jobs (queue, kind, priority, run_at, id) WHERE running = 0;
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE running = 1;
CREATE INDEX jobs_worker ON jobs (worker) WHERE running = 1;
CREATE TABLE job_details (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  kind TEXT NOT NULL,
  queue TEXT NOT NULL,
  priority BIGINT NOT NULL,
  payload TEXT NOT NULL,
  context TEXT NOT NULL,
  allowance BIGINT NOT NULL,
  timeout BIGINT,
  unique_key TEXT,
  created_at BIGINT NOT NULL
);
CREATE TABLE job_attempts (
  job_id TEXT NOT NULL,
  number BIGINT NOT NULL,
  worker TEXT NOT NULL,
  started_at BIGINT NOT NULL,
  finished_at BIGINT,
  outcome TEXT,
  error TEXT,
  PRIMARY KEY (job_id, number)
);
CREATE TABLE jobs_finished (
  id TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  max_attempts BIGINT NOT NULL,
  fence BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  finished_at BIGINT NOT NULL,
  result TEXT
);
CREATE INDEX jobs_finished_age ON jobs_finished (state, finished_at);
CREATE TABLE job_unique (
  unique_key TEXT PRIMARY KEY,
  job_id TEXT NOT NULL,
  until BIGINT
);
CREATE TABLE job_workers (
  worker TEXT PRIMARY KEY,
  kinds TEXT NOT NULL,
  seen BIGINT NOT NULL
);
";
