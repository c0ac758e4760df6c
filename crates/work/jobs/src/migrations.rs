//! The tables: what waits, what runs and what has ended lie apart, so that each stays as small as its work.

use runtime_migrate::{Migration, MigrationSet};

/// The schema of jobs, for a [`runtime_migrate::Migrator`].
pub const SET: MigrationSet = MigrationSet {
    module: "jobs",
    migrations: &[
        Migration::new(1, "create_jobs", SQLITE, POSTGRES),
        Migration::new(2, "link_jobs", LINKS_SQLITE, LINKS_POSTGRES),
    ],
};

/// Times are microseconds since the epoch. A claim takes rows out of `ready` and writes them into one row of `leases`,
/// so a job that runs costs no row of its own and its table no update.
const SQLITE: &str = "
CREATE TABLE runtime_jobs_ready (
  id BLOB PRIMARY KEY,
  lane BIGINT NOT NULL,
  rank BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL,
  turn INT NOT NULL
);
CREATE INDEX runtime_jobs_ready_due ON runtime_jobs_ready (lane, rank, id);
CREATE TABLE runtime_jobs_later (
  id BLOB PRIMARY KEY,
  lane BIGINT NOT NULL,
  rank BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL,
  turn INT NOT NULL
);
CREATE INDEX runtime_jobs_later_due ON runtime_jobs_later (run_at, id);
CREATE TABLE runtime_jobs_keyed (
  id BLOB PRIMARY KEY,
  lane BIGINT NOT NULL,
  rank BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL,
  turn INT NOT NULL
);
CREATE INDEX runtime_jobs_keyed_next ON runtime_jobs_keyed (lane, limit_key, rank, id);
CREATE TABLE runtime_jobs_slots (
  lane BIGINT NOT NULL,
  limit_key TEXT NOT NULL,
  running BIGINT NOT NULL,
  promoted BIGINT NOT NULL,
  parked BIGINT NOT NULL,
  tat BIGINT NOT NULL,
  open_at BIGINT,
  concurrency BIGINT,
  pace BIGINT NOT NULL,
  tolerance BIGINT NOT NULL,
  PRIMARY KEY (lane, limit_key)
);
CREATE INDEX runtime_jobs_slots_open ON runtime_jobs_slots (open_at) WHERE open_at IS NOT NULL;
CREATE TABLE runtime_jobs_pauses (
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  PRIMARY KEY (queue, kind)
);
CREATE TABLE runtime_jobs_leases (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  worker TEXT NOT NULL,
  claimed_at BIGINT NOT NULL,
  until BIGINT NOT NULL,
  ended BLOB NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX runtime_jobs_leases_until ON runtime_jobs_leases (until);
CREATE TABLE runtime_jobs_progress (
  job_id BLOB PRIMARY KEY,
  progress TEXT,
  checkpoint TEXT
);
CREATE TABLE runtime_jobs_cancels (
  job_id BLOB PRIMARY KEY,
  lease BIGINT NOT NULL
);
CREATE INDEX runtime_jobs_cancels_lease ON runtime_jobs_cancels (lease);
CREATE TABLE runtime_jobs_finished (
  id BLOB PRIMARY KEY,
  state INT NOT NULL,
  finished_at BIGINT NOT NULL,
  started_at BIGINT,
  worker TEXT,
  result TEXT,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL
);
CREATE INDEX runtime_jobs_finished_age ON runtime_jobs_finished (state, finished_at);
CREATE TABLE runtime_jobs_attempts (
  job_id BLOB NOT NULL,
  number INT NOT NULL,
  worker TEXT NOT NULL,
  started_at BIGINT NOT NULL,
  finished_at BIGINT NOT NULL,
  outcome TEXT NOT NULL,
  error TEXT,
  PRIMARY KEY (job_id, number)
);
CREATE TABLE runtime_jobs_unique (
  unique_key TEXT PRIMARY KEY,
  job_id BLOB NOT NULL,
  until BIGINT,
  waiting INT NOT NULL
);
CREATE TABLE runtime_jobs_workers (
  worker TEXT PRIMARY KEY,
  kinds TEXT NOT NULL,
  seen BIGINT NOT NULL
);
";

/// The same for Postgres. `ready` is vacuumed early and often, since every job passes through it; what a lease holds is
/// kept as it is, because packing it costs more than it saves in the seconds it lives.
const POSTGRES: &str = "
CREATE TABLE runtime_jobs_ready (
  id UUID PRIMARY KEY,
  lane BIGINT NOT NULL,
  rank BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL DEFAULT 0,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL DEFAULT 0,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL,
  turn INT NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX runtime_jobs_ready_due ON runtime_jobs_ready (lane, rank, id);
CREATE INDEX runtime_jobs_ready_key ON runtime_jobs_ready (lane, limit_key, rank, id) WHERE limit_key IS NOT NULL;
CREATE TABLE runtime_jobs_later (LIKE runtime_jobs_ready INCLUDING DEFAULTS);
ALTER TABLE runtime_jobs_later ADD PRIMARY KEY (id);
CREATE INDEX runtime_jobs_later_due ON runtime_jobs_later (run_at, id);
CREATE TABLE runtime_jobs_keyed (LIKE runtime_jobs_ready INCLUDING DEFAULTS);
ALTER TABLE runtime_jobs_keyed ADD PRIMARY KEY (id);
CREATE INDEX runtime_jobs_keyed_next ON runtime_jobs_keyed (lane, limit_key, rank, id);
CREATE TABLE runtime_jobs_slots (
  lane BIGINT NOT NULL,
  limit_key TEXT NOT NULL,
  running BIGINT NOT NULL,
  promoted BIGINT NOT NULL,
  parked BIGINT NOT NULL,
  tat BIGINT NOT NULL,
  open_at BIGINT,
  concurrency BIGINT,
  pace BIGINT NOT NULL,
  tolerance BIGINT NOT NULL,
  PRIMARY KEY (lane, limit_key)
);
CREATE INDEX runtime_jobs_slots_open ON runtime_jobs_slots (open_at) WHERE open_at IS NOT NULL;
CREATE TABLE runtime_jobs_pauses (
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  PRIMARY KEY (queue, kind)
);
CREATE TABLE runtime_jobs_leases (
  id BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  worker TEXT NOT NULL,
  claimed_at BIGINT NOT NULL,
  until BIGINT NOT NULL,
  ended BYTEA NOT NULL,
  body TEXT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE runtime_jobs_leases ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX runtime_jobs_leases_until ON runtime_jobs_leases (until);
CREATE TABLE runtime_jobs_progress (
  job_id UUID PRIMARY KEY,
  progress TEXT,
  checkpoint TEXT
);
CREATE TABLE runtime_jobs_cancels (
  job_id UUID PRIMARY KEY,
  lease BIGINT NOT NULL
);
CREATE INDEX runtime_jobs_cancels_lease ON runtime_jobs_cancels (lease);
CREATE TABLE runtime_jobs_finished (
  id UUID PRIMARY KEY,
  state INT NOT NULL,
  finished_at BIGINT NOT NULL,
  started_at BIGINT,
  worker TEXT,
  result TEXT,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL
);
CREATE INDEX runtime_jobs_finished_age ON runtime_jobs_finished (state, finished_at);
CREATE TABLE runtime_jobs_attempts (
  job_id UUID NOT NULL,
  number INT NOT NULL,
  worker TEXT NOT NULL,
  started_at BIGINT NOT NULL,
  finished_at BIGINT NOT NULL,
  outcome TEXT NOT NULL,
  error TEXT,
  PRIMARY KEY (job_id, number)
);
CREATE TABLE runtime_jobs_unique (
  unique_key TEXT PRIMARY KEY,
  job_id UUID NOT NULL,
  until BIGINT,
  waiting INT NOT NULL
);
CREATE TABLE runtime_jobs_workers (
  worker TEXT PRIMARY KEY,
  kinds TEXT NOT NULL,
  seen BIGINT NOT NULL
);
";

/// A group counts jobs: the members of a batch, or those one job waits for, when it has that job's id. What waits for a
/// group lies in `awaiting`, and `waits` says for which.
const LINKS_SQLITE: &str = "
CREATE TABLE runtime_jobs_awaiting (
  id BLOB PRIMARY KEY,
  lane BIGINT NOT NULL,
  rank BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  priority INT NOT NULL,
  attempt INT NOT NULL,
  max_attempts INT NOT NULL,
  allowance INT NOT NULL,
  claims INT NOT NULL,
  timeout BIGINT,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  unique_key TEXT,
  limit_key TEXT,
  context TEXT NOT NULL,
  payload TEXT NOT NULL,
  turn INT NOT NULL
);
CREATE TABLE runtime_jobs_groups (
  id BLOB PRIMARY KEY,
  tenant TEXT NOT NULL,
  batch INT NOT NULL,
  total BIGINT NOT NULL,
  open BIGINT NOT NULL,
  dead BIGINT NOT NULL,
  cancelled BIGINT NOT NULL,
  cause BLOB,
  closed INT NOT NULL,
  created_at BIGINT NOT NULL,
  changed_at BIGINT NOT NULL
);
CREATE INDEX runtime_jobs_groups_over ON runtime_jobs_groups (changed_at) WHERE batch = 1 AND open = 0;
CREATE TABLE runtime_jobs_members (
  group_id BLOB NOT NULL,
  job_id BLOB NOT NULL,
  place INT NOT NULL,
  name TEXT,
  PRIMARY KEY (group_id, job_id)
);
CREATE INDEX runtime_jobs_members_job ON runtime_jobs_members (job_id);
CREATE TABLE runtime_jobs_waits (
  job_id BLOB PRIMARY KEY,
  group_id BLOB NOT NULL,
  rule INT NOT NULL
);
CREATE INDEX runtime_jobs_waits_group ON runtime_jobs_waits (group_id);
";

/// The same for Postgres. A group's row is updated by every report that ends one of its jobs.
const LINKS_POSTGRES: &str = "
CREATE TABLE runtime_jobs_awaiting (LIKE runtime_jobs_ready INCLUDING DEFAULTS);
ALTER TABLE runtime_jobs_awaiting ADD PRIMARY KEY (id);
CREATE TABLE runtime_jobs_groups (
  id UUID PRIMARY KEY,
  tenant TEXT NOT NULL,
  batch INT NOT NULL,
  total BIGINT NOT NULL,
  open BIGINT NOT NULL,
  dead BIGINT NOT NULL,
  cancelled BIGINT NOT NULL,
  cause UUID,
  closed INT NOT NULL,
  created_at BIGINT NOT NULL,
  changed_at BIGINT NOT NULL
);
CREATE INDEX runtime_jobs_groups_over ON runtime_jobs_groups (changed_at) WHERE batch = 1 AND open = 0;
CREATE TABLE runtime_jobs_members (
  group_id UUID NOT NULL,
  job_id UUID NOT NULL,
  place INT NOT NULL,
  name TEXT,
  PRIMARY KEY (group_id, job_id)
);
CREATE INDEX runtime_jobs_members_job ON runtime_jobs_members (job_id);
CREATE TABLE runtime_jobs_waits (
  job_id UUID PRIMARY KEY,
  group_id UUID NOT NULL,
  rule INT NOT NULL
);
CREATE INDEX runtime_jobs_waits_group ON runtime_jobs_waits (group_id);
";
