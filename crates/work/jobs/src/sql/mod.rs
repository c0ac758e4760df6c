//! Jobs in a database: one implementation for SQLite and Postgres, in plain statements both understand.

mod claim;
mod rows;
mod run;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::{self, AssertSqlSafe, Row};
use runtime_db::{Database, Dialect, Tx};
use runtime_kernel::{Context, Source};

use self::rows::{
    SELECT, among, job_id, job_of, json, load, micros, number, read, state_condition, timestamp,
};
use self::run::{UNREACHABLE, change, rows};
use self::steps::{end_attempt, finish, insert_one, take_report, wait};
use crate::error::JobsError;
use crate::job::{AttemptOutcome, Enqueued, Job, JobId, JobState};
use crate::store::{
    ClaimRequest, Claimed, Depth, Filter, Insert, JobStore, Pulse, Receipt, Report, Rescued, Retention,
    Stats, lost,
};

/// A worker not heard from for a day is forgotten; in microseconds.
const FORGOTTEN: i64 = 24 * 3600 * 1_000_000;

/// Jobs in the database a service has anyway, so that enqueueing can be part of its transactions.
///
/// Time comes from the database: Postgres is asked for it in each transaction; SQLite lives on this machine, so
/// its time is this process's clock.
#[derive(Clone, Debug)]
pub struct SqlStore {
    db: Database,
}

impl SqlStore {
    /// Jobs in this database. Its tables come with [`migrations`](crate::migrations).
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    /// Adds jobs inside a transaction of the caller's: they exist when, and only when, it commits.
    ///
    /// # Errors
    /// As [`JobStore::insert`].
    pub async fn insert_in(&self, tx: &mut Tx, jobs: &[Insert]) -> Result<Vec<Enqueued>, JobsError> {
        let now = self.now(tx).await?;
        let mut done = Vec::with_capacity(jobs.len());
        for insert in jobs {
            done.push(insert_one(tx, now, insert).await?);
        }
        Ok(done)
    }

    async fn now(&self, tx: &mut Tx) -> Result<i64, JobsError> {
        if tx.dialect() == Dialect::Sqlite {
            return Ok(self.db.clock().utc().as_microsecond());
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now";
        let now = rows!(tx, sql, [], |row| row.try_get::<i64, _>("now")?);
        now.first().copied().ok_or_else(|| JobsError::Corrupt("the database has no time".to_owned()))
    }
}

#[async_trait]
impl JobStore for SqlStore {
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError> {
        self.db.transaction(&self.context(), async |mut tx: Tx| self.insert_in(&mut tx, &jobs).await).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        self.claim_due(request).await
    }

    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[(JobId, u64)],
        lease: Duration,
    ) -> Result<Pulse, JobsError> {
        let kinds = json(&kinds)?;
        let ids = json(&held.iter().map(|(id, _)| id).collect::<Vec<_>>())?;
        let claims = json(&held.iter().map(|(id, fence)| format!("{id}/{fence}")).collect::<Vec<_>>())?;
        let beat = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let sql = "INSERT INTO job_workers (worker, kinds, seen) VALUES ($1, $2, $3)
                ON CONFLICT (worker) DO UPDATE SET kinds = excluded.kinds, seen = excluded.seen";
            change!(tx, sql, worker, &kinds, now);
            if held.is_empty() {
                return Ok(Pulse::default());
            }
            // The ids find the rows by key; the fence tells a claim apart from a later one of the same worker.
            let (listed, exact) = (among(tx.dialect(), "$2"), among(tx.dialect(), "$5"));
            let sql = format!(
                "UPDATE jobs SET lease_until = $4
                 WHERE running = 1 AND worker = $1 AND lease_until >= $3 AND id IN {listed}
                 AND id || '/' || CAST(fence AS TEXT) IN {exact} RETURNING id, fence, cancel"
            );
            let until = now.saturating_add(micros(lease));
            let extended = rows!(tx, sql, [worker, &ids, now, until, &claims], |row| (
                job_id(&row.try_get::<String, _>("id")?)?,
                number::<u64>(row.try_get::<i64, _>("fence")?),
                row.try_get::<i64, _>("cancel")? == 1,
            ));
            Ok::<_, JobsError>(Pulse {
                cancel: extended.iter().filter(|(_, _, cancel)| *cancel).map(|(id, _, _)| *id).collect(),
                held: extended.into_iter().map(|(id, fence, _)| (id, fence)).collect(),
            })
        };
        self.db.transaction(&self.context(), beat).await
    }

    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError> {
        let report = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let mut receipts = Vec::with_capacity(reports.len());
            for report in &reports {
                receipts.push(take_report(tx, now, report).await?);
            }
            Ok::<_, JobsError>(receipts)
        };
        self.db.transaction(&self.context(), report).await
    }

    async fn rescue(&self, max: u32) -> Result<Rescued, JobsError> {
        let rescue = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let skip = if tx.dialect() == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
            let sql = format!(
                "SELECT id, fence, attempt, max_attempts, cancel FROM jobs
                 WHERE running = 1 AND lease_until < $1 ORDER BY lease_until, id LIMIT $2 {skip}"
            );
            let expired = rows!(tx, sql, [now, i64::from(max)], |row| (
                row.try_get::<String, _>("id")?,
                row.try_get::<i64, _>("fence")?,
                row.try_get::<i64, _>("attempt")? >= row.try_get::<i64, _>("max_attempts")?,
                row.try_get::<i64, _>("cancel")? == 1,
            ));
            let mut rescued = Rescued::default();
            for (id, fence, used_up, cancel) in expired {
                end_attempt(tx, now, &id, fence, AttemptOutcome::Lost, Some(&lost())).await?;
                if used_up || cancel {
                    let state = if cancel { JobState::Cancelled } else { JobState::Dead };
                    finish(tx, now, &id, state, None).await?;
                    rescued.dead += 1;
                } else {
                    wait(tx, &id, now, 0).await?;
                    rescued.returned += 1;
                }
            }
            Ok::<_, JobsError>(rescued)
        };
        self.db.transaction(&self.context(), rescue).await
    }

    async fn cancel(&self, id: JobId, tenant: Option<&str>) -> Result<JobState, JobsError> {
        let cancel = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let job = load(tx, now, id, tenant, true).await?.ok_or(JobsError::NotFound(id))?;
            match job.state {
                JobState::Running => {
                    change!(tx, "UPDATE jobs SET cancel = 1 WHERE id = $1", id.to_string());
                    Ok(JobState::Running)
                }
                JobState::Available | JobState::Scheduled => {
                    finish(tx, now, &id.to_string(), JobState::Cancelled, None).await?;
                    Ok(JobState::Cancelled)
                }
                JobState::Cancelled => Ok(JobState::Cancelled),
                finished => Err(JobsError::WrongState { id, state: finished.as_str(), action: "cancelled" }),
            }
        };
        self.db.transaction(&self.context(), cancel).await
    }

    async fn redrive(&self, id: Option<JobId>, filter: &Filter) -> Result<u64, JobsError> {
        let redrive = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let lock = if tx.dialect() == Dialect::Postgres { "FOR UPDATE OF f SKIP LOCKED" } else { "" };
            let sql = format!(
                "SELECT f.id FROM jobs_finished f JOIN job_details d ON d.id = f.id
                 WHERE f.state = 'dead' AND ($1 IS NULL OR f.id = $1) AND ($2 IS NULL OR d.tenant = $2)
                 AND ($3 IS NULL OR d.kind = $3) AND ($4 IS NULL OR d.queue = $4)
                 AND ($5 IS NULL OR f.id < $5) ORDER BY f.id DESC LIMIT $6 {lock}"
            );
            let (one, before) = (id.map(|id| id.to_string()), filter.before.map(|id| id.to_string()));
            let (tenant, kind, queue) = (&filter.tenant, &filter.kind, &filter.queue);
            let limit = i64::from(filter.limit);
            let ids = rows!(tx, sql, [&one, tenant, kind, queue, &before, limit], |row| row
                .try_get::<String, _>("id")?);
            let mut count = 0;
            for id in &ids {
                let sql = "DELETE FROM job_unique WHERE until <= $2 AND unique_key =
                    (SELECT unique_key FROM job_details WHERE id = $1)";
                change!(tx, sql, id, now);
                // Whoever holds the key by now has it; a job that cannot have it again stays where it is.
                let sql = "INSERT INTO job_unique (unique_key, job_id) SELECT unique_key, id FROM job_details
                    WHERE id = $1 AND unique_key IS NOT NULL ON CONFLICT (unique_key) DO NOTHING";
                change!(tx, sql, id);
                let sql =
                    "SELECT u.job_id FROM job_details d JOIN job_unique u ON u.unique_key = d.unique_key
                    WHERE d.id = $1 AND u.job_id <> $1 AND (u.until IS NULL OR u.until > $2)";
                if !rows!(tx, sql, [id, now], |row| row.try_get::<String, _>("job_id")?).is_empty() {
                    continue;
                }
                count += 1;
                let sql = "INSERT INTO jobs
                    (id, queue, kind, priority, running, run_at, attempt, max_attempts, fence, cancel)
                    SELECT d.id, d.queue, d.kind, d.priority, 0, $2, f.attempt, f.attempt + d.allowance, f.fence, 0
                    FROM jobs_finished f JOIN job_details d ON d.id = f.id WHERE f.id = $1";
                change!(tx, sql, id, now);
                change!(tx, "DELETE FROM jobs_finished WHERE id = $1", id);
            }
            Ok::<_, JobsError>(count)
        };
        self.db.transaction(&self.context(), redrive).await
    }

    async fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<Job>, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = self.now(&mut tx).await?;
        let job = load(&mut tx, now, id, tenant, false).await?;
        tx.rollback().await?;
        Ok(job)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Job>, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = self.now(&mut tx).await?;
        let sql = format!(
            "{SELECT} WHERE ($1 IS NULL OR d.tenant = $1) AND ($2 IS NULL OR d.kind = $2)
             AND ($3 IS NULL OR d.queue = $3) AND ($4 IS NULL OR d.id < $4) AND {} ORDER BY d.id DESC LIMIT $5",
            state_condition(filter.state, now),
        );
        let before = filter.before.map(|id| id.to_string());
        let limit = i64::from(filter.limit);
        let jobs =
            rows!(tx, sql, [&filter.tenant, &filter.kind, &filter.queue, &before, limit], |row| job_of(
                row, now
            )?);
        tx.rollback().await?;
        Ok(jobs)
    }

    async fn prune(&self, retention: &Retention, max: u32) -> Result<u64, JobsError> {
        let prune = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let mut pruned: u64 = 0;
            for (state, keep) in [
                ("completed", retention.completed),
                ("dead", retention.dead),
                ("cancelled", retention.cancelled),
            ] {
                let Some(keep) = keep else { continue };
                let left = i64::from(max) - i64::try_from(pruned).unwrap_or(i64::MAX);
                if left <= 0 {
                    break;
                }
                let skip = if tx.dialect() == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
                let sql = format!(
                    "SELECT id FROM jobs_finished WHERE state = $1 AND finished_at < $2
                     ORDER BY finished_at, id LIMIT $3 {skip}"
                );
                let before = now.saturating_sub(micros(keep));
                let ids = rows!(tx, sql, [state, before, left], |row| row.try_get::<String, _>("id")?);
                pruned += ids.len() as u64;
                let (ids, listed) = (json(&ids)?, among(tx.dialect(), "$1"));
                for (table, key) in
                    [("jobs_finished", "id"), ("job_details", "id"), ("job_attempts", "job_id")]
                {
                    change!(tx, format!("DELETE FROM {table} WHERE {key} IN {listed}"), &ids);
                }
            }
            change!(tx, "DELETE FROM job_unique WHERE until <= $1", now);
            change!(tx, "DELETE FROM job_workers WHERE seen < $1", now.saturating_sub(FORGOTTEN));
            Ok::<_, JobsError>(pruned)
        };
        self.db.transaction(&self.context(), prune).await
    }

    async fn stats(&self, live: Duration) -> Result<Stats, JobsError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = self.now(&mut tx).await?;
        let sql = format!(
            "SELECT queue, kind, CASE WHEN running = 1 THEN 'running' WHEN run_at > {now} THEN 'scheduled'
             ELSE 'available' END AS state, count(*) AS n, min(run_at) AS oldest
             FROM jobs GROUP BY queue, kind, 3 ORDER BY queue, kind"
        );
        let counts = rows!(tx, sql, [], |row| (
            row.try_get::<String, _>("queue")?,
            row.try_get::<String, _>("kind")?,
            row.try_get::<String, _>("state")?,
            number::<u64>(row.try_get::<i64, _>("n")?),
            row.try_get::<i64, _>("oldest")?,
        ));
        let sql = "SELECT state, count(*) AS n FROM jobs_finished GROUP BY state";
        let finished = rows!(tx, sql, [], |row| (
            row.try_get::<String, _>("state")?,
            number(row.try_get::<i64, _>("n")?)
        ));
        let sql = "SELECT kinds FROM job_workers WHERE seen >= $1";
        let workers = rows!(tx, sql, [now.saturating_sub(micros(live))], |row| {
            read::<Vec<String>>(&row.try_get::<String, _>("kinds")?)?
        });
        tx.rollback().await?;
        Ok(sum_up(counts, finished, workers))
    }
}

fn sum_up(
    counts: Vec<(String, String, String, u64, i64)>,
    finished: Vec<(String, u64)>,
    workers: Vec<Vec<String>>,
) -> Stats {
    let handled: BTreeSet<String> = workers.into_iter().flatten().collect();
    let mut stats = Stats { finished: finished.into_iter().collect(), ..Stats::default() };
    let mut unhandled = BTreeSet::new();
    for (queue, kind, state, n, oldest) in counts {
        if state != "running" && !handled.contains(&kind) {
            unhandled.insert(kind.clone());
        }
        let same = stats.depths.last().is_some_and(|depth| depth.queue == queue && depth.kind == kind);
        if !same {
            stats.depths.push(Depth { queue, kind, states: BTreeMap::new(), oldest: None });
        }
        if let Some(depth) = stats.depths.last_mut() {
            if state == "available" {
                depth.oldest = Some(timestamp(oldest));
            }
            depth.states.insert(state, n);
        }
    }
    stats.unhandled = unhandled.into_iter().collect();
    stats
}
