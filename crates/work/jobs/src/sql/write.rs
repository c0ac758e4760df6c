//! Puts jobs into their tables: as they are enqueued, as they wait again, as they end.

use runtime_db::sqlx::{self, AssertSqlSafe};
use runtime_db::{Tx, on_connection};
use runtime_kernel::{Timestamp, Uuid};

use super::row::{COLUMNS, End, FINISHED, Row, lane, micros, state_number};
use super::{SqlStore, clock};
use crate::error::JobsError;
use crate::job::{AttemptOutcome, Enqueued, Failure, JobId};
use crate::store::{Insert, limit_name, rank, unique_name};

/// From so many rows on, Postgres is sent a copy.
const BULK: usize = 4;

/// A table of waiting jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Ready,
    Later,
    /// Waits for its key's limit.
    Keyed,
}

impl Table {
    pub(super) const ALL: [Self; 3] = [Self::Later, Self::Ready, Self::Keyed];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ready => "runtime_jobs_ready",
            Self::Later => "runtime_jobs_later",
            Self::Keyed => "runtime_jobs_keyed",
        }
    }
}

impl SqlStore {
    /// Enqueues. A job with a time of its own goes to `later`, from where a claim fetches it when it has come.
    pub(super) async fn add(&self, tx: &mut Tx, jobs: &[Insert]) -> Result<Vec<Enqueued>, JobsError> {
        let mut done = Vec::with_capacity(jobs.len());
        let mut fresh = Vec::with_capacity(jobs.len());
        for insert in jobs {
            let holder = match &insert.job.unique_key {
                Some(key) => self.take_key(tx, insert, key).await?,
                None => None,
            };
            done.push(Enqueued { id: holder.unwrap_or(insert.id), duplicate: holder.is_some() });
            if holder.is_none() {
                fresh.push(insert);
            }
        }
        let now = if fresh.len() < BULK { self.local_now() } else { Some(self.now(tx).await?) };
        match (now, fresh.as_slice()) {
            // Postgres tells the time within the statement: one round trip in the caller's transaction.
            (None, few) => {
                for insert in few {
                    self.enqueue_one(tx, insert).await?;
                }
            }
            (Some(now), many) => {
                let rows = |table: Table| {
                    let here =
                        move |insert: &&&Insert| (insert.job.run_at.is_some()) == (table == Table::Later);
                    many.iter().filter(here).map(|insert| self.row(insert, now)).collect::<Vec<_>>()
                };
                let (ready, later) = (rows(Table::Ready), rows(Table::Later));
                write_waiting(tx, Table::Ready, &ready).await?;
                write_waiting(tx, Table::Later, &later).await?;
            }
        }
        for insert in &fresh {
            if insert.job.run_at.is_none() && insert.job.priority < 0 {
                let rank = rank(self.db.clock().utc().as_microsecond(), insert.job.priority, self.ageing);
                self.low.arrived(lane(&insert.job.queue, &insert.job.kind), rank);
            }
        }
        Ok(done)
    }

    fn row(&self, insert: &Insert, now: i64) -> Row {
        let job = &insert.job;
        let run_at = job.run_at.map_or(now, Timestamp::as_microsecond);
        let allowance = i32::try_from(job.max_attempts).unwrap_or(i32::MAX);
        Row {
            id: insert.id.as_uuid(),
            rank: rank(run_at, job.priority, self.ageing),
            run_at,
            created_at: now,
            priority: i32::from(job.priority),
            attempt: 0,
            max_attempts: allowance,
            allowance,
            claims: 0,
            timeout: job.timeout.map(micros),
            queue: job.queue.clone(),
            kind: job.kind.clone(),
            tenant: insert.origin.tenant.to_string(),
            unique_key: job.unique_key.as_ref().map(|key| unique_name(&insert.origin.tenant, &job.kind, key)),
            limit_key: job.key.as_ref().map(|key| limit_name(&insert.origin.tenant, key)),
            context: insert.origin.context.to_string(),
            payload: job.payload.to_string(),
            turn: false,
        }
    }

    async fn enqueue_one(&self, tx: &mut Tx, insert: &Insert) -> Result<(), JobsError> {
        let row = self.row(insert, 0);
        let table = if insert.job.run_at.is_some() { Table::Later } else { Table::Ready };
        let own = insert.job.run_at.map(Timestamp::as_microsecond);
        let sql = format!(
            "INSERT INTO {} ({COLUMNS}) SELECT $1, $2, COALESCE($3, now) + $4, COALESCE($3, now), now, $5, 0, $6, $6, \
             0, $7, $8, $9, $10, $11, $12, $13, $14, 0 FROM (SELECT {} AS now) AS t",
            table.name(),
            clock(tx.dialect(), "$15"),
        );
        let step = rank(0, insert.job.priority, self.ageing);
        on_connection!(tx, conn => {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(row.id)
                .bind(row.lane())
                .bind(own)
                .bind(step)
                .bind(row.priority)
                .bind(row.allowance)
                .bind(row.timeout)
                .bind(&row.queue)
                .bind(&row.kind)
                .bind(&row.tenant)
                .bind(&row.unique_key)
                .bind(&row.limit_key)
                .bind(&row.context)
                .bind(&row.payload)
                .bind(self.local_now())
                .execute(&mut *conn)
                .await?
                .rows_affected()
        })?;
        Ok(())
    }

    /// Takes a job's unique key, or says who has it.
    async fn take_key(&self, tx: &mut Tx, insert: &Insert, key: &str) -> Result<Option<JobId>, JobsError> {
        let key = unique_name(&insert.origin.tenant, &insert.job.kind, key);
        self.take(tx, &key, insert.id, insert.job.unique_for.map(micros)).await
    }

    /// Takes a unique key for a job, for ever or for a period; `None` when it has it now, else who has.
    pub(super) async fn take(
        &self,
        tx: &mut Tx,
        key: &str,
        id: JobId,
        period: Option<i64>,
    ) -> Result<Option<JobId>, JobsError> {
        let now = clock(tx.dialect(), "$4");
        let take = format!(
            "INSERT INTO runtime_jobs_unique (unique_key, job_id, until) VALUES ($1, $2, {now} + $3)
             ON CONFLICT (unique_key) DO UPDATE SET job_id = excluded.job_id, until = excluded.until
             WHERE runtime_jobs_unique.until <= {now} RETURNING job_id"
        );
        let holder = "SELECT job_id FROM runtime_jobs_unique WHERE unique_key = $1";
        // Again when the holder gives it up between the two statements.
        for _ in 0..10 {
            let taken: Option<Uuid> = on_connection!(tx, conn => {
                sqlx::query_scalar(AssertSqlSafe(take.clone()))
                    .bind(key)
                    .bind(id.as_uuid())
                    .bind(period)
                    .bind(self.local_now())
                    .fetch_optional(&mut *conn)
                    .await?
            })?;
            if taken.is_some() {
                return Ok(None);
            }
            let holder: Option<Uuid> = on_connection!(tx, conn => {
                sqlx::query_scalar(holder).bind(key).fetch_optional(&mut *conn).await?
            })?;
            if let Some(holder) = holder.map(JobId::from) {
                return Ok((holder != id).then_some(holder));
            }
        }
        Err(JobsError::Corrupt("a unique key changes hands without end".to_owned()))
    }
}

/// Writes waiting jobs as they are.
pub(super) async fn write_waiting(tx: &mut Tx, table: Table, rows: &[Row]) -> Result<(), JobsError> {
    #[cfg(feature = "postgres")]
    if rows.len() >= BULK
        && let Some(conn) = tx.postgres()
    {
        return super::copy::waiting(conn, table.name(), rows.iter()).await;
    }
    let sql = format!("INSERT INTO {} ({COLUMNS}) VALUES ({})", table.name(), places(19));
    for row in rows {
        on_connection!(tx, conn => {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(row.id)
                .bind(row.lane())
                .bind(row.rank)
                .bind(row.run_at)
                .bind(row.created_at)
                .bind(row.priority)
                .bind(row.attempt)
                .bind(row.max_attempts)
                .bind(row.allowance)
                .bind(row.claims)
                .bind(row.timeout)
                .bind(&row.queue)
                .bind(&row.kind)
                .bind(&row.tenant)
                .bind(&row.unique_key)
                .bind(&row.limit_key)
                .bind(&row.context)
                .bind(&row.payload)
                .bind(i32::from(row.turn))
                .execute(&mut *conn)
                .await?
                .rows_affected()
        })?;
    }
    Ok(())
}

/// Writes finished jobs, and gives up the unique keys that were theirs for as long as they were unfinished.
pub(super) async fn write_finished(tx: &mut Tx, rows: &[(&Row, End)]) -> Result<(), JobsError> {
    for (row, _) in rows {
        if let Some(key) = &row.unique_key {
            let sql =
                "DELETE FROM runtime_jobs_unique WHERE unique_key = $1 AND job_id = $2 AND until IS NULL";
            on_connection!(tx, conn => sqlx::query(sql).bind(key).bind(row.id).execute(&mut *conn).await?.rows_affected())?;
        }
    }
    #[cfg(feature = "postgres")]
    if rows.len() >= BULK
        && let Some(conn) = tx.postgres()
    {
        return super::copy::finished(conn, rows).await;
    }
    let sql = format!("INSERT INTO runtime_jobs_finished ({FINISHED}) VALUES ({})", places(21));
    for (row, end) in rows {
        on_connection!(tx, conn => {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(row.id)
                .bind(state_number(end.state))
                .bind(end.at)
                .bind(end.started)
                .bind(&end.worker)
                .bind(&end.result)
                .bind(row.run_at)
                .bind(row.created_at)
                .bind(row.priority)
                .bind(row.attempt)
                .bind(row.max_attempts)
                .bind(row.allowance)
                .bind(row.claims)
                .bind(row.timeout)
                .bind(&row.queue)
                .bind(&row.kind)
                .bind(&row.tenant)
                .bind(&row.unique_key)
                .bind(&row.limit_key)
                .bind(&row.context)
                .bind(&row.payload)
                .execute(&mut *conn)
                .await?
                .rows_affected()
        })?;
    }
    Ok(())
}

/// An attempt that ended without completing its job.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) row: &'a Row,
    pub(super) worker: &'a str,
    pub(super) started: i64,
    pub(super) at: i64,
    pub(super) outcome: AttemptOutcome,
    pub(super) failure: Option<&'a Failure>,
}

/// Keeps what became of an attempt.
pub(super) async fn write_attempt(tx: &mut Tx, ending: &Ending<'_>) -> Result<(), JobsError> {
    let sql =
        "INSERT INTO runtime_jobs_attempts (job_id, number, worker, started_at, finished_at, outcome, error)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let error = ending.failure.map(super::row::json).transpose()?;
    on_connection!(tx, conn => {
        sqlx::query(sql)
            .bind(ending.row.id)
            .bind(ending.row.claims)
            .bind(ending.worker)
            .bind(ending.started)
            .bind(ending.at)
            .bind(ending.outcome.as_str())
            .bind(&error)
            .execute(&mut *conn)
            .await?
                .rows_affected()
    })?;
    Ok(())
}

/// `$1, …, $n`.
fn places(count: usize) -> String {
    (1..=count).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ")
}
