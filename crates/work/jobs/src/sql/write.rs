//! Puts jobs into their tables: as they are enqueued, as they wait again, as they end.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use runtime_db::sqlx::{self, AssertSqlSafe};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::{Timestamp, Uuid};

use super::row::{COLUMNS, Columns, End, FINISHED, Row, Words, lane, micros, state_number};
use super::{SqlStore, clock};
use crate::error::JobsError;
use crate::job::{AttemptOutcome, Enqueued, Failure, JobId, NewJob};
use crate::store::{Insert, limit_name, rank, unique_name};

/// From so many rows on, Postgres is sent a copy.
const BULK: usize = 4;

/// A period that began so much earlier than its key was had, in microseconds, is begun again.
const LATE: i64 = 100_000;

/// A table of waiting jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Ready,
    Later,
    /// Waits for its key's limit.
    Keyed,
    /// Waits for other jobs.
    Awaiting,
}

impl Table {
    /// In the order a job passes through them.
    pub(super) const ALL: [Self; 4] = [Self::Awaiting, Self::Later, Self::Ready, Self::Keyed];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ready => "runtime_jobs_ready",
            Self::Later => "runtime_jobs_later",
            Self::Keyed => "runtime_jobs_keyed",
            Self::Awaiting => "runtime_jobs_awaiting",
        }
    }
}

/// A job's row, written in a statement that tells the time itself.
struct Alone {
    sql: String,
    row: Row,
    /// When it may run, if it has a time of its own.
    own: Option<i64>,
    /// How its priority moves its rank.
    step: i64,
    now: Option<i64>,
}

/// Writes an [`Alone`] on a connection or a pool of either database.
macro_rules! alone_on {
    ($alone:ident, $conn:expr) => {
        sqlx::query(AssertSqlSafe($alone.sql.clone()))
            .bind($alone.row.id)
            .bind($alone.row.lane())
            .bind($alone.own)
            .bind($alone.step)
            .bind($alone.row.priority)
            .bind($alone.row.allowance)
            .bind($alone.row.timeout)
            .bind(&*$alone.row.queue)
            .bind(&*$alone.row.kind)
            .bind(&*$alone.row.tenant)
            .bind(&$alone.row.unique_key)
            .bind(&$alone.row.limit_key)
            .bind(&*$alone.row.context)
            .bind(&*$alone.row.payload)
            .bind($alone.now)
            .execute($conn)
            .await?
            .rows_affected()
    };
}

impl SqlStore {
    /// Enqueues. A job with a time of its own goes to `later`, from where a claim fetches it when it has come.
    pub(super) async fn add(&self, tx: &mut Tx, jobs: &[Insert]) -> Result<Vec<Enqueued>, JobsError> {
        if jobs.iter().any(|insert| insert.job.is_linked()) {
            return self.add_linked(tx, jobs).await;
        }
        let mut done = Vec::with_capacity(jobs.len());
        let mut fresh = Vec::with_capacity(jobs.len());
        let mut holders = self.holders(tx, jobs).await?;
        for (place, insert) in jobs.iter().enumerate() {
            let holder = holders.remove(&place);
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
                for table in [Table::Ready, Table::Later] {
                    let here = |insert: &&&Insert| insert.job.run_at.is_some() == (table == Table::Later);
                    let count = many.iter().filter(here).count();
                    let mut words = Words::default();
                    // Made one after another, while the database takes in those before.
                    let rows = many.iter().filter(here).map(|insert| self.row(insert, now, &mut words));
                    let columns = if many.iter().all(|insert| is_plain(&insert.job)) {
                        Columns::Plain
                    } else {
                        Columns::All
                    };
                    write_rows(tx, table, columns, count, rows).await?;
                }
            }
        }
        for insert in &fresh {
            self.note_urgent(insert);
        }
        Ok(done)
    }

    /// One that overtakes may lie below the mark claims begin at.
    pub(super) fn note_urgent(&self, insert: &Insert) {
        if insert.job.run_at.is_none() && insert.job.priority < 0 {
            let rank = rank(self.db.clock().utc().as_microsecond(), insert.job.priority, self.ageing);
            self.low.arrived(lane(&insert.job.queue, &insert.job.kind), rank);
        }
    }

    pub(super) fn row(&self, insert: &Insert, now: i64, words: &mut Words) -> Row {
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
            queue: words.word(&job.queue),
            kind: words.word(&job.kind),
            tenant: Arc::clone(&insert.origin.tenant),
            unique_key: job.unique_key.as_ref().map(|key| unique_name(&insert.origin.tenant, &job.kind, key)),
            limit_key: job.key.as_ref().map(|key| limit_name(&insert.origin.tenant, key)),
            context: Arc::clone(&insert.origin.context),
            payload: words.text(&job.payload),
            turn: false,
            linked: false,
        }
    }

    async fn enqueue_one(&self, tx: &mut Tx, insert: &Insert) -> Result<(), JobsError> {
        let alone = self.alone(insert, tx.dialect());
        on_connection!(tx, conn => alone_on!(alone, &mut *conn))?;
        Ok(())
    }

    /// Enqueues a job that needs nothing beside its row, with the statement as its transaction.
    #[cfg(feature = "postgres")]
    pub(super) async fn enqueue_alone(&self, pool: &sqlx::PgPool, insert: &Insert) -> Result<(), JobsError> {
        let alone = self.alone(insert, Dialect::Postgres);
        let written: Result<u64, runtime_db::DbError> = async { Ok(alone_on!(alone, pool)) }.await;
        written?;
        Ok(())
    }

    fn alone(&self, insert: &Insert, dialect: Dialect) -> Alone {
        let table = if insert.job.run_at.is_some() { Table::Later } else { Table::Ready };
        let sql = format!(
            "INSERT INTO {} ({COLUMNS}) SELECT $1, $2, COALESCE($3, now) + $4, COALESCE($3, now), now, $5, 0, $6, $6, \
             0, $7, $8, $9, $10, $11, $12, $13, $14, 0 FROM (SELECT {} AS now) AS t",
            table.name(),
            clock(dialect, "$15"),
        );
        Alone {
            sql,
            row: self.row(insert, 0, &mut Words::default()),
            own: insert.job.run_at.map(Timestamp::as_microsecond),
            step: rank(0, insert.job.priority, self.ageing),
            now: self.local_now(),
        }
    }

    /// Takes the unique keys of these jobs, in one order for all who do; says who has those that are taken, by place.
    pub(super) async fn holders(
        &self,
        tx: &mut Tx,
        jobs: &[Insert],
    ) -> Result<BTreeMap<usize, JobId>, JobsError> {
        let mut keyed = BTreeMap::new();
        for (place, insert) in jobs.iter().enumerate() {
            if let Some(key) = &insert.job.unique_key {
                keyed.insert((unique_name(&insert.origin.tenant, &insert.job.kind, key), place), insert);
            }
        }
        let mut holders = BTreeMap::new();
        for ((key, place), insert) in keyed {
            let (job, id) = (&insert.job, insert.id);
            let period = job.unique_for.map(micros);
            let holder = self.take(tx, &key, id, period, job.unique_until_started).await?;
            holders.extend(holder.map(|holder| (place, holder)));
        }
        Ok(holders)
    }

    /// Takes a unique key for a job, until it ends, for a period, or while it waits; `None` when it has it now, else who has.
    pub(super) async fn take(
        &self,
        tx: &mut Tx,
        key: &str,
        id: JobId,
        period: Option<i64>,
        waiting: bool,
    ) -> Result<Option<JobId>, JobsError> {
        let now = clock(tx.dialect(), "$4");
        // Who has it until its end or for a period is not locked: its end is not to wait for this transaction's. Who has it
        // until it begins is, so that it sees what this transaction commits.
        let take = format!(
            "INSERT INTO runtime_jobs_unique (unique_key, job_id, until, waiting) SELECT $1, $2, {now} + $3, $5
             WHERE NOT EXISTS (SELECT 1 FROM runtime_jobs_unique WHERE unique_key = $1 AND waiting = 0
               AND (until IS NULL OR until > {now}))
             ON CONFLICT (unique_key) DO UPDATE SET job_id = excluded.job_id, until = excluded.until,
             waiting = excluded.waiting
             WHERE runtime_jobs_unique.until <= {now} RETURNING until < {now} + $3 - {LATE}"
        );
        // Who had to wait for another transaction to end took it later than it had begun to.
        let again = format!(
            "UPDATE runtime_jobs_unique SET until = {now} + $3 WHERE unique_key = $1 AND job_id = $2"
        );
        let holder = "SELECT job_id FROM runtime_jobs_unique WHERE unique_key = $1";
        // Again when the holder gives it up between the two statements.
        for _ in 0..10 {
            let taken: Option<Option<bool>> = on_connection!(tx, conn => {
                sqlx::query_scalar(AssertSqlSafe(take.clone()))
                    .bind(key)
                    .bind(id.as_uuid())
                    .bind(period)
                    .bind(self.local_now())
                    .bind(i32::from(waiting))
                    .fetch_optional(&mut *conn)
                    .await?
            })?;
            if let Some(late) = taken {
                if late == Some(true) {
                    on_connection!(tx, conn => {
                        sqlx::query(AssertSqlSafe(again.clone()))
                            .bind(key)
                            .bind(id.as_uuid())
                            .bind(period)
                            .bind(self.local_now())
                            .execute(&mut *conn)
                            .await?
                            .rows_affected()
                    })?;
                }
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
    write_rows(tx, table, Columns::All, rows.len(), rows.iter()).await
}

/// Whether a job, as it is enqueued, has only what [`Columns::Plain`] has.
fn is_plain(job: &NewJob) -> bool {
    job.timeout.is_none() && job.unique_key.is_none() && job.key.is_none()
}

#[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "only a copy leaves columns out"))]
async fn write_rows<R: Borrow<Row> + Send>(
    tx: &mut Tx,
    table: Table,
    columns: Columns,
    count: usize,
    rows: impl Iterator<Item = R> + Send,
) -> Result<(), JobsError> {
    if count == 0 {
        return Ok(());
    }
    #[cfg(feature = "postgres")]
    if count >= BULK
        && let Some(conn) = tx.postgres()
    {
        return super::copy::waiting(conn, table.name(), columns, rows).await;
    }
    let sql = format!("INSERT INTO {} ({COLUMNS}) VALUES ({})", table.name(), places(19));
    for row in rows {
        let row: &Row = row.borrow();
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
                .bind(&*row.queue)
                .bind(&*row.kind)
                .bind(&*row.tenant)
                .bind(&row.unique_key)
                .bind(&row.limit_key)
                .bind(&*row.context)
                .bind(&*row.payload)
                .bind(row.marks())
                .execute(&mut *conn)
                .await?
                .rows_affected()
        })?;
    }
    Ok(())
}

/// Gives up the unique keys jobs had until they began. Only a first attempt has one to give up.
pub(super) async fn give_up_begun(tx: &mut Tx, rows: &[Row]) -> Result<(), JobsError> {
    let first = rows.iter().filter(|row| row.claims <= 1);
    let keys: Vec<_> =
        first.filter_map(|row| Some((row.unique_key.as_deref()?, row.id.simple().to_string()))).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let sql = if tx.dialect() == Dialect::Postgres {
        "DELETE FROM runtime_jobs_unique WHERE waiting = 1 AND (unique_key, job_id) IN
         (SELECT value ->> 0, (value ->> 1)::uuid FROM jsonb_array_elements($1::text::jsonb))"
    } else {
        "DELETE FROM runtime_jobs_unique WHERE waiting = 1 AND (unique_key, lower(hex(job_id))) IN
         (SELECT value ->> 0, value ->> 1 FROM json_each($1))"
    };
    let keys = super::row::json(&keys)?;
    on_connection!(tx, conn => sqlx::query(sql).bind(&keys).execute(&mut *conn).await?.rows_affected())?;
    Ok(())
}

/// Writes finished jobs, and gives up the unique keys that were theirs for as long as they were unfinished.
pub(super) async fn write_finished(tx: &mut Tx, rows: &[(&Row, End)]) -> Result<(), JobsError> {
    let mut keys: Vec<(&String, Uuid)> =
        rows.iter().filter_map(|(row, _)| row.unique_key.as_ref().map(|key| (key, row.id))).collect();
    keys.sort_unstable();
    for (key, id) in keys {
        let sql = "DELETE FROM runtime_jobs_unique WHERE unique_key = $1 AND job_id = $2 AND until IS NULL";
        on_connection!(tx, conn => sqlx::query(sql).bind(key).bind(id).execute(&mut *conn).await?.rows_affected())?;
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
                .bind(&*row.queue)
                .bind(&*row.kind)
                .bind(&*row.tenant)
                .bind(&row.unique_key)
                .bind(&row.limit_key)
                .bind(&*row.context)
                .bind(&*row.payload)
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
