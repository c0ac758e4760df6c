//! Jobs in a database: one implementation for SQLite and Postgres, in plain statements both understand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::{self, AssertSqlSafe, Row};
use runtime_db::{Database, DbError, Dialect, Tx};
use runtime_kernel::{Context, Source, Timestamp};
use serde::de::DeserializeOwned;

use crate::error::JobsError;
use crate::job::{Attempt, AttemptOutcome, Enqueued, Failure, Job, JobId, JobState};
use crate::store::{
    ClaimRequest, Claimed, Depth, Filter, Insert, JobStore, Pulse, Receipt, Report, Rescued, Retention,
    Stats, Verdict, lost, namespace,
};

/// Runs a statement on whichever connection there is, and counts the rows it changed.
macro_rules! change {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {{
        let sql: String = $sql.into();
        match $tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let conn = $tx.sqlite().ok_or(UNREACHABLE)?;
                sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.execute(&mut *conn).await?.rows_affected()
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let conn = $tx.postgres().ok_or(UNREACHABLE)?;
                sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.execute(&mut *conn).await?.rows_affected()
            }
            #[allow(unreachable_patterns, reason = "which databases exist depends on the features")]
            _ => return Err(UNREACHABLE.into()),
        }
    }};
}

/// Runs a query and maps every row.
macro_rules! rows {
    ($tx:expr, $sql:expr, [$($bind:expr),* $(,)?], |$row:ident| $map:expr) => {{
        let sql: String = $sql.into();
        match $tx.dialect() {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let conn = $tx.sqlite().ok_or(UNREACHABLE)?;
                let rows = sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.fetch_all(&mut *conn).await?;
                rows.iter().map(|$row| -> Result<_, JobsError> { Ok($map) }).collect::<Result<Vec<_>, JobsError>>()?
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let conn = $tx.postgres().ok_or(UNREACHABLE)?;
                let rows = sqlx::query(AssertSqlSafe(sql))$(.bind($bind))*.fetch_all(&mut *conn).await?;
                rows.iter().map(|$row| -> Result<_, JobsError> { Ok($map) }).collect::<Result<Vec<_>, JobsError>>()?
            }
            #[allow(unreachable_patterns, reason = "which databases exist depends on the features")]
            _ => return Err(UNREACHABLE.into()),
        }
    }};
}

const UNREACHABLE: DbError = DbError::Unsupported("a database this build of runtime-jobs has no feature for");

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

async fn insert_one(tx: &mut Tx, now: i64, insert: &Insert) -> Result<Enqueued, JobsError> {
    let Insert { id, job, context } = insert;
    // Before the key is touched: the job may have finished and given it up, and must not take it again.
    let known = rows!(tx, "SELECT id FROM job_details WHERE id = $1", [id.to_string()], |row| row
        .try_get::<String, _>("id")?);
    if !known.is_empty() {
        return Ok(Enqueued { id: *id, duplicate: false });
    }
    let tenant = namespace(context);
    let unique = job.unique_key.as_ref().map(|key| format!("{tenant}\n{}\n{key}", job.kind));
    if let Some(key) = &unique {
        change!(tx, "DELETE FROM job_unique WHERE unique_key = $1 AND until <= $2", key, now);
        let until = job.unique_for.map(|period| now.saturating_add(micros(period)));
        if let Some(holder) = take_key(tx, key, *id, until).await?
            && holder != *id
        {
            return Ok(Enqueued { id: holder, duplicate: true });
        }
    }
    let sql = "INSERT INTO job_details
        (id, tenant, kind, queue, priority, payload, context, allowance, timeout, unique_key, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
    let added = change!(
        tx,
        sql,
        id.to_string(),
        &tenant,
        &job.kind,
        &job.queue,
        i64::from(job.priority),
        job.payload.to_string(),
        json(context)?,
        i64::from(job.max_attempts),
        job.timeout.map(micros),
        unique.as_ref(),
        now,
    );
    if added == 1 {
        let sql = "INSERT INTO jobs
            (id, queue, kind, priority, running, run_at, attempt, max_attempts, fence, cancel)
            VALUES ($1, $2, $3, $4, 0, $5, 0, $6, 0, 0)";
        let run_at = job.run_at.map_or(now, Timestamp::as_microsecond);
        let (priority, allowance) = (i64::from(job.priority), i64::from(job.max_attempts));
        change!(tx, sql, id.to_string(), &job.queue, &job.kind, priority, run_at, allowance);
    }
    Ok(Enqueued { id: *id, duplicate: false })
}

/// Takes a unique key, or says who has it.
async fn take_key(tx: &mut Tx, key: &str, id: JobId, until: Option<i64>) -> Result<Option<JobId>, JobsError> {
    // Again when the holder gives it up between the two statements.
    for _ in 0..10 {
        let sql =
            "INSERT INTO job_unique (unique_key, job_id, until) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        if change!(tx, sql, key, id.to_string(), until) == 1 {
            return Ok(None);
        }
        let sql = "SELECT job_id FROM job_unique WHERE unique_key = $1";
        let holder = rows!(tx, sql, [key], |row| job_id(&row.try_get::<String, _>("job_id")?)?);
        if let Some(holder) = holder.first() {
            return Ok(Some(*holder));
        }
    }
    Err(JobsError::Corrupt("a unique key changes hands without end".to_owned()))
}

#[async_trait]
impl JobStore for SqlStore {
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError> {
        self.db.transaction(&self.context(), async |mut tx: Tx| self.insert_in(&mut tx, &jobs).await).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        let claim = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let dialect = tx.dialect();
            let skip = if dialect == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
            let sql = format!(
                "SELECT id FROM jobs WHERE running = 0 AND run_at <= $1 AND queue IN {} AND kind IN {}
                 ORDER BY priority, run_at, id LIMIT $4 {skip}",
                among(dialect, "$2"),
                among(dialect, "$3"),
            );
            let max = i64::from(request.max);
            let (queues, kinds) = (json(&request.queues)?, json(&request.kinds)?);
            let ids = rows!(tx, sql, [now, &queues, &kinds, max], |row| row.try_get::<String, _>("id")?);
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let (ids, listed) = (json(&ids)?, among(dialect, "$1"));
            let sql = format!(
                "UPDATE jobs SET running = 1, attempt = attempt + 1, fence = fence + 1, worker = $2, lease_until = $3
                 WHERE id IN {listed}"
            );
            change!(tx, sql, &ids, &request.worker, now.saturating_add(micros(request.lease)));
            let sql = format!(
                "INSERT INTO job_attempts (job_id, number, worker, started_at)
                 SELECT id, fence, worker, {now} FROM jobs WHERE id IN {listed}"
            );
            change!(tx, sql, &ids);
            let sql = format!(
                "SELECT j.id, j.fence, j.kind, j.queue, j.attempt, j.max_attempts, d.payload, d.context, d.timeout
                 FROM jobs j JOIN job_details d ON d.id = j.id WHERE j.id IN {listed}
                 ORDER BY j.priority, j.run_at, j.id"
            );
            let read = rows!(tx, sql, [&ids], |row| {
                let (id, fence) = (row.try_get::<String, _>("id")?, row.try_get::<i64, _>("fence")?);
                let payload = read(&row.try_get::<String, _>("payload")?);
                let context = read(&row.try_get::<String, _>("context")?);
                match payload.and_then(|payload| Ok((payload, context?))) {
                    Err(error) => Err((id, fence, error.to_string())),
                    Ok((payload, context)) => Ok(Claimed {
                        id: job_id(&id)?,
                        fence: number(fence),
                        kind: row.try_get("kind")?,
                        queue: row.try_get("queue")?,
                        payload,
                        context,
                        attempt: number(row.try_get::<i64, _>("attempt")?),
                        max_attempts: number(row.try_get::<i64, _>("max_attempts")?),
                        timeout: row.try_get::<Option<i64>, _>("timeout")?.map(duration),
                    }),
                }
            });
            let mut claimed = Vec::with_capacity(read.len());
            for job in read {
                match job {
                    Ok(job) => claimed.push(job),
                    // One row that does not read back must not keep the others waiting.
                    Err((id, fence, reason)) => {
                        let failure = Failure::new("invalid", "jobs.corrupt", reason);
                        end_attempt(tx, now, &id, fence, AttemptOutcome::Failed, Some(&failure)).await?;
                        finish(tx, now, &id, JobState::Dead, None).await?;
                    }
                }
            }
            Ok(claimed)
        };
        self.db.transaction(&self.context(), claim).await
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
                 WHERE running = 1 AND lease_until < $1 ORDER BY lease_until LIMIT $2 {skip}"
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
                    "SELECT id FROM jobs_finished WHERE state = $1 AND finished_at < $2 LIMIT $3 {skip}"
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

async fn take_report(tx: &mut Tx, now: i64, report: &Report) -> Result<Receipt, JobsError> {
    let (id, fence) = (report.id.to_string(), i64::try_from(report.fence).unwrap_or(i64::MAX));
    // Taking the row's lock decides the race with a rescue.
    let sql = "UPDATE jobs SET running = 1 WHERE id = $1 AND fence = $2 AND running = 1 AND lease_until >= $3
        RETURNING cancel";
    let held = rows!(tx, sql, [&id, fence, now], |row| row.try_get::<i64, _>("cancel")? == 1);
    let Some(cancel) = held.first().copied() else { return Ok(Receipt::Stale) };
    let (outcome, failure) = match &report.verdict {
        Verdict::Completed(_) => (AttemptOutcome::Completed, None),
        Verdict::Dead(failure) | Verdict::Retry(_, failure) => (AttemptOutcome::Failed, Some(failure)),
        Verdict::Cancelled => (AttemptOutcome::Cancelled, None),
        Verdict::Released(_) => (AttemptOutcome::Released, None),
    };
    end_attempt(tx, now, &id, fence, outcome, failure).await?;
    match &report.verdict {
        Verdict::Completed(result) => {
            finish(tx, now, &id, JobState::Completed, Some(result.to_string())).await?;
        }
        Verdict::Dead(_) => finish(tx, now, &id, JobState::Dead, None).await?,
        Verdict::Cancelled => finish(tx, now, &id, JobState::Cancelled, None).await?,
        Verdict::Retry(..) | Verdict::Released(_) if cancel => {
            finish(tx, now, &id, JobState::Cancelled, None).await?;
        }
        Verdict::Retry(delay, _) => wait(tx, &id, now.saturating_add(micros(*delay)), 0).await?,
        Verdict::Released(delay) => wait(tx, &id, now.saturating_add(micros(*delay)), 1).await?,
    }
    Ok(Receipt::Accepted)
}

async fn end_attempt(
    tx: &mut Tx,
    now: i64,
    id: &str,
    fence: i64,
    outcome: AttemptOutcome,
    failure: Option<&Failure>,
) -> Result<(), JobsError> {
    let sql = "UPDATE job_attempts SET finished_at = $3, outcome = $4, error = $5 WHERE job_id = $1 AND number = $2";
    let error = failure.map(json).transpose()?;
    change!(tx, sql, id, fence, now, outcome.as_str(), error);
    Ok(())
}

/// Back into the queue; `refund` attempts are not counted.
async fn wait(tx: &mut Tx, id: &str, at: i64, refund: i64) -> Result<(), JobsError> {
    let sql =
        "UPDATE jobs SET running = 0, worker = NULL, lease_until = NULL, run_at = $2, attempt = attempt - $3
        WHERE id = $1";
    change!(tx, sql, id, at, refund);
    Ok(())
}

async fn finish(
    tx: &mut Tx,
    now: i64,
    id: &str,
    state: JobState,
    result: Option<String>,
) -> Result<(), JobsError> {
    let sql =
        "INSERT INTO jobs_finished (id, state, attempt, max_attempts, fence, run_at, finished_at, result)
        SELECT id, $2, attempt, max_attempts, fence, run_at, $3, $4 FROM jobs WHERE id = $1";
    change!(tx, sql, id, state.as_str(), now, result);
    change!(tx, "DELETE FROM jobs WHERE id = $1", id);
    // A key taken for a period outlives its job.
    change!(
        tx,
        "DELETE FROM job_unique WHERE until IS NULL AND job_id = $1 AND unique_key =
        (SELECT unique_key FROM job_details WHERE id = $1)",
        id
    );
    Ok(())
}

/// A worker not heard from for a day is forgotten; in microseconds.
const FORGOTTEN: i64 = 24 * 3600 * 1_000_000;

const SELECT: &str =
    "SELECT d.id, d.kind, d.queue, d.priority, d.payload, d.context, d.timeout, d.created_at,
    j.running, COALESCE(j.run_at, f.run_at) AS run_at, COALESCE(j.attempt, f.attempt) AS attempt,
    COALESCE(j.max_attempts, f.max_attempts) AS max_attempts, j.cancel, f.state, f.finished_at, f.result
    FROM job_details d LEFT JOIN jobs j ON j.id = d.id LEFT JOIN jobs_finished f ON f.id = d.id";

fn state_condition(state: Option<JobState>, now: i64) -> String {
    match state {
        None => "1 = 1".to_owned(),
        Some(JobState::Scheduled) => format!("j.running = 0 AND j.run_at > {now}"),
        Some(JobState::Available) => format!("j.running = 0 AND j.run_at <= {now}"),
        Some(JobState::Running) => "j.running = 1".to_owned(),
        Some(finished) => format!("f.state = '{}'", finished.as_str()),
    }
}

async fn load(
    tx: &mut Tx,
    now: i64,
    id: JobId,
    tenant: Option<&str>,
    lock: bool,
) -> Result<Option<Job>, JobsError> {
    let key = id.to_string();
    if lock && tx.dialect() == Dialect::Postgres {
        rows!(tx, "SELECT id FROM jobs WHERE id = $1 FOR UPDATE", [&key], |row| row
            .try_get::<String, _>("id")?);
    }
    let sql = format!("{SELECT} WHERE d.id = $1 AND ($2 IS NULL OR d.tenant = $2)");
    let mut jobs = rows!(tx, sql, [&key, tenant], |row| job_of(row, now)?);
    let Some(mut job) = jobs.pop() else { return Ok(None) };
    let sql =
        "SELECT number, worker, started_at, finished_at, outcome, error FROM job_attempts WHERE job_id = $1
        ORDER BY number";
    job.attempts = rows!(tx, sql, [&key], |row| Attempt {
        number: number(row.try_get::<i64, _>("number")?),
        worker: row.try_get("worker")?,
        started_at: timestamp(row.try_get("started_at")?),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(timestamp),
        outcome: row.try_get::<Option<String>, _>("outcome")?.as_deref().and_then(AttemptOutcome::parse),
        error: row.try_get::<Option<String>, _>("error")?.as_deref().map(read).transpose()?,
    });
    Ok(Some(job))
}

fn job_of<'r, R>(row: &'r R, now: i64) -> Result<Job, JobsError>
where
    R: Row,
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<i64>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let run_at: i64 = row.try_get("run_at")?;
    let finished: Option<String> = row.try_get("state")?;
    let running: Option<i64> = row.try_get("running")?;
    let state = match (finished, running) {
        (Some(state), None) => {
            JobState::parse(&state).ok_or_else(|| JobsError::Corrupt(format!("unknown state `{state}`")))?
        }
        (_, Some(1)) => JobState::Running,
        (_, Some(_)) if run_at > now => JobState::Scheduled,
        (_, Some(_)) => JobState::Available,
        (None, None) => return Err(JobsError::Corrupt("a job without a state".to_owned())),
    };
    Ok(Job {
        id: job_id(&row.try_get::<String, _>("id")?)?,
        kind: row.try_get("kind")?,
        queue: row.try_get("queue")?,
        state,
        priority: i16::try_from(row.try_get::<i64, _>("priority")?).unwrap_or_default(),
        payload: read(&row.try_get::<String, _>("payload")?)?,
        context: read(&row.try_get::<String, _>("context")?)?,
        attempt: number(row.try_get::<i64, _>("attempt")?),
        max_attempts: number(row.try_get::<i64, _>("max_attempts")?),
        timeout: row.try_get::<Option<i64>, _>("timeout")?.map(duration),
        created_at: timestamp(row.try_get("created_at")?),
        run_at: timestamp(run_at),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(timestamp),
        result: row.try_get::<Option<String>, _>("result")?.as_deref().map(read).transpose()?,
        cancel_requested: row.try_get::<Option<i64>, _>("cancel")? == Some(1),
        attempts: Vec::new(),
    })
}

/// The rows of a list given as one JSON parameter.
fn among(dialect: Dialect, parameter: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("(SELECT value FROM json_each({parameter}))"),
        Dialect::Postgres => format!("(SELECT jsonb_array_elements_text(({parameter})::text::jsonb))"),
    }
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, JobsError> {
    serde_json::to_string(value).map_err(|error| JobsError::Invalid(error.to_string()))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, JobsError> {
    serde_json::from_str(text).map_err(|error| JobsError::Corrupt(error.to_string()))
}

fn job_id(text: &str) -> Result<JobId, JobsError> {
    text.parse().map_err(|_| JobsError::Corrupt(format!("`{text}` is not a job id")))
}

fn number<N: TryFrom<i64> + Default>(value: i64) -> N {
    N::try_from(value).unwrap_or_default()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(number(micros))
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
