//! What people ask: where a job stands, which jobs there are, to stop one, to try dead ones again.

use std::collections::{BTreeMap, HashSet};

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Uuid;

use super::awaiting::memberships;
use super::lease::{self, Standing};
use super::row::{
    COLUMNS, End, FINISHED, Row, Words, finished_of, number, read, state_number, timestamp, waiting_of,
};
use super::slots::Left;
use super::write::{Table, write_finished, write_waiting};
use super::{SqlStore, on_reader};
use crate::error::JobsError;
use crate::job::{Attempt, AttemptOutcome, Job, JobId, JobState};
use crate::store::{Filter, Pause, rank};

/// Where a job was found.
enum Found {
    Waiting(Table, Row),
    Running(Box<Standing>, usize),
    Finished(Row, End),
}

impl Found {
    fn tenant(&self) -> &str {
        match self {
            Self::Waiting(_, row) | Self::Finished(row, _) => &row.tenant,
            Self::Running(standing, place) => standing.lease.rows.get(*place).map_or("", |row| &*row.tenant),
        }
    }
}

impl SqlStore {
    /// Looks wherever a job can be. A job moves while one looks: what was passed already is looked at again.
    async fn locate(&self, tx: &mut Tx, id: JobId, lock: bool) -> Result<Option<Found>, JobsError> {
        let uuid = id.as_uuid();
        let lock = if lock && tx.dialect() == Dialect::Postgres { "FOR UPDATE" } else { "" };
        for _ in 0..3 {
            for table in Table::ALL {
                let sql = format!("SELECT {COLUMNS} FROM {} WHERE id = $1 {lock}", table.name());
                let row = on_connection!(tx, conn => {
                    match sqlx::query(AssertSqlSafe(sql.clone())).bind(uuid).fetch_optional(&mut *conn).await? {
                        Some(row) => Some(waiting_of(&row, &mut Words::default())?),
                        None => None,
                    }
                })?;
                if let Some(row) = row {
                    return Ok(Some(Found::Waiting(table, row)));
                }
            }
            for standing in lease::all(tx, Some(uuid)).await? {
                if let Some(place) = standing.lease.place(uuid).filter(|place| !standing.ended.has(*place))
                    && (lock.is_empty() || lease::lock(tx, standing.lease.id, place).await?)
                {
                    return Ok(Some(Found::Running(Box::new(standing), place)));
                }
            }
            let sql = format!("SELECT {FINISHED} FROM runtime_jobs_finished WHERE id = $1");
            let row = on_connection!(tx, conn => {
                match sqlx::query(AssertSqlSafe(sql.clone())).bind(uuid).fetch_optional(&mut *conn).await? {
                    Some(row) => Some(finished_of(&row, &mut Words::default())?),
                    None => None,
                }
            })?;
            if let Some((row, end)) = row {
                return Ok(Some(Found::Finished(row, end)));
            }
            if tx.dialect() == Dialect::Sqlite {
                break;
            }
        }
        Ok(None)
    }

    pub(super) async fn find(
        &self,
        tx: &mut Tx,
        id: JobId,
        tenant: Option<&str>,
    ) -> Result<Option<Job>, JobsError> {
        let now = self.now(tx).await?;
        let Some(found) = self.locate(tx, id, false).await? else { return Ok(None) };
        if tenant.is_some_and(|tenant| tenant != found.tenant()) {
            return Ok(None);
        }
        let mut attempts = attempts(tx, id).await?;
        let mut job = match &found {
            Found::Waiting(table, row) => row.job(waiting_state(*table, row, now), None)?,
            Found::Running(standing, place) => {
                let Some(row) = standing.lease.rows.get(*place) else { return Ok(None) };
                attempts.push(attempt(row, &standing.lease.worker, standing.lease.claimed_at, None));
                let cancel_requested = cancelling(tx).await?.contains(&(row.id, standing.lease.id));
                Job { cancel_requested, ..row.job(JobState::Running, None)? }
            }
            Found::Finished(row, end) => {
                if end.state == JobState::Completed
                    && let (Some(worker), Some(started)) = (&end.worker, end.started)
                {
                    attempts.push(attempt(row, worker, started, Some(end.at)));
                }
                row.job(end.state, Some(end))?
            }
        };
        job.attempts = attempts;
        Ok(Some(job))
    }

    pub(super) async fn stop(
        &self,
        tx: &mut Tx,
        id: JobId,
        tenant: Option<&str>,
    ) -> Result<JobState, JobsError> {
        let now = self.now(tx).await?;
        let found = self.locate(tx, id, true).await?;
        let visible = |found: &Found| tenant.is_none_or(|tenant| tenant == found.tenant());
        match found.filter(visible).ok_or(JobsError::NotFound(id))? {
            Found::Waiting(table, row) => {
                let sql = format!("DELETE FROM {} WHERE id = $1", table.name());
                on_connection!(tx, conn => {
                    sqlx::query(AssertSqlSafe(sql.clone())).bind(row.id).execute(&mut *conn).await?.rows_affected()
                })?;
                if let Some(key) = row.limit_key.as_ref().filter(|_| table != Table::Awaiting) {
                    let left = match table {
                        Table::Keyed => Left { parked: 1, ..Left::default() },
                        _ => Left { promoted: i64::from(row.turn), ..Left::default() },
                    };
                    let left = BTreeMap::from([((row.lane(), key.clone()), left)]);
                    match table {
                        Table::Ready => self.leave_ready(tx, &left).await?,
                        _ => self.leave(tx, &left).await?,
                    }
                }
                let state = JobState::Cancelled;
                let end = End { state, at: now, started: None, worker: None, result: None };
                write_finished(tx, &[(&row, end)]).await?;
                if row.linked {
                    self.tell_waiters(tx, vec![(row.id, state)], now).await?;
                }
                Ok(state)
            }
            Found::Running(standing, _) => {
                let sql = "INSERT INTO runtime_jobs_cancels (job_id, lease) VALUES ($1, $2)
                    ON CONFLICT (job_id) DO UPDATE SET lease = excluded.lease";
                let lease = standing.lease.id;
                on_connection!(tx, conn => {
                    sqlx::query(sql).bind(id.as_uuid()).bind(lease).execute(&mut *conn).await?.rows_affected()
                })?;
                Ok(JobState::Running)
            }
            Found::Finished(_, end) if end.state == JobState::Cancelled => Ok(JobState::Cancelled),
            Found::Finished(_, end) => {
                Err(JobsError::WrongState { id, state: end.state.as_str(), action: "cancelled" })
            }
        }
    }

    pub(super) async fn revive(
        &self,
        tx: &mut Tx,
        id: Option<JobId>,
        filter: &Filter,
    ) -> Result<u64, JobsError> {
        let now = self.now(tx).await?;
        let mut back = Vec::new();
        for (row, _) in finished(tx, Some(JobState::Dead), id, filter, true).await? {
            // Whoever holds the key by now has it; a job that cannot have it again stays where it is.
            if let Some(key) = &row.unique_key
                && self.take(tx, key, JobId::from(row.id), None, false).await?.is_some()
            {
                continue;
            }
            let sql = "DELETE FROM runtime_jobs_finished WHERE id = $1";
            on_connection!(tx, conn => sqlx::query(sql).bind(row.id).execute(&mut *conn).await?.rows_affected())?;
            back.push(Row {
                rank: rank(now, i16::try_from(row.priority).unwrap_or_default(), self.ageing),
                run_at: now,
                max_attempts: row.attempt.saturating_add(row.allowance),
                ..row
            });
        }
        self.reopen(tx, &mut back, now).await?;
        write_waiting(tx, Table::Later, &back).await?;
        Ok(back.len() as u64)
    }

    pub(super) async fn page(&self, tx: &mut Tx, filter: &Filter) -> Result<Vec<Job>, JobsError> {
        let now = self.now(tx).await?;
        let wanted = |state: JobState| filter.state.is_none_or(|wanted| wanted == state);
        let mut jobs = Vec::new();
        for table in Table::ALL {
            let there = match table {
                Table::Awaiting => wanted(JobState::Waiting),
                _ => wanted(JobState::Scheduled) || wanted(JobState::Available),
            };
            if there {
                for row in waiting(tx, table, filter, now).await? {
                    jobs.push(row.job(waiting_state(table, &row, now), None)?);
                }
            }
        }
        if wanted(JobState::Running) {
            let cancelled = cancelling(tx).await?;
            for standing in lease::all(tx, None).await? {
                let fit = standing.lease.open(&standing.ended).filter(|row| row.fits(filter));
                for row in members_only(tx, filter, fit.collect()).await? {
                    let cancel_requested = cancelled.contains(&(row.id, standing.lease.id));
                    jobs.push(Job { cancel_requested, ..row.job(JobState::Running, None)? });
                }
            }
        }
        if filter.state.is_none_or(JobState::is_finished) {
            for (row, end) in finished(tx, filter.state, None, filter, false).await? {
                jobs.push(row.job(end.state, Some(&end))?);
            }
        }
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
        // A job that moved while the tables were read may be in two of them.
        jobs.dedup_by_key(|job| job.id);
        jobs.truncate(usize::try_from(filter.limit).unwrap_or(usize::MAX));
        Ok(jobs)
    }
}

impl SqlStore {
    pub(super) async fn mark_paused(&self, queue: &str, kind: &str, paused: bool) -> Result<(), JobsError> {
        let sql = if paused {
            "INSERT INTO runtime_jobs_pauses (queue, kind) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM runtime_jobs_pauses WHERE queue = $1 AND kind = $2"
        };
        let mark = async |mut tx: Tx| {
            let tx = &mut tx;
            on_connection!(tx, conn => {
                sqlx::query(sql).bind(queue).bind(kind).execute(&mut *conn).await?.rows_affected()
            })?;
            Ok::<_, JobsError>(())
        };
        self.db.transaction(&self.context(), mark).await
    }

    pub(super) async fn read_paused(&self) -> Result<Vec<Pause>, JobsError> {
        let sql = "SELECT queue, kind FROM runtime_jobs_pauses ORDER BY queue, kind";
        let paused = on_reader!(self.db, pool => {
            let rows = sqlx::query(sql).fetch_all(pool).await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            read.collect::<Result<Vec<(String, String)>, sqlx::Error>>()?
        });
        let named = |kind: String| (!kind.is_empty()).then_some(kind);
        Ok(paused.into_iter().map(|(queue, kind)| Pause { queue, kind: named(kind) }).collect())
    }
}

fn waiting_state(table: Table, row: &Row, now: i64) -> JobState {
    match table {
        Table::Awaiting => JobState::Waiting,
        _ if row.run_at > now => JobState::Scheduled,
        _ => JobState::Available,
    }
}

/// Those of a batch, when the filter names one.
async fn members_only<'a>(
    tx: &mut Tx,
    filter: &Filter,
    mut rows: Vec<&'a Row>,
) -> Result<Vec<&'a Row>, JobsError> {
    if let Some(batch) = filter.batch {
        let found = memberships(tx, rows.iter().map(|row| &row.id)).await?;
        rows.retain(|row| found.contains(&(batch.as_uuid(), row.id)));
    }
    Ok(rows)
}

/// The attempt that runs, or that completed its job.
fn attempt(row: &Row, worker: &str, started: i64, completed: Option<i64>) -> Attempt {
    Attempt {
        number: number(i64::from(row.claims)),
        worker: worker.to_owned(),
        started_at: timestamp(started),
        finished_at: completed.map(timestamp),
        outcome: completed.map(|_| AttemptOutcome::Completed),
        error: None,
    }
}

async fn attempts(tx: &mut Tx, id: JobId) -> Result<Vec<Attempt>, JobsError> {
    let sql = "SELECT number, worker, started_at, finished_at, outcome, error FROM runtime_jobs_attempts
        WHERE job_id = $1 ORDER BY number";
    on_connection!(tx, conn => {
        let rows = sqlx::query(sql).bind(id.as_uuid()).fetch_all(&mut *conn).await?;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in rows {
            attempts.push(Attempt {
                number: number(i64::from(row.try_get::<i32, _>(0)?)),
                worker: row.try_get(1)?,
                started_at: timestamp(row.try_get(2)?),
                finished_at: Some(timestamp(row.try_get(3)?)),
                outcome: AttemptOutcome::parse(&row.try_get::<String, _>(4)?),
                error: row.try_get::<Option<String>, _>(5)?.as_deref().map(read).transpose()?,
            });
        }
        Ok(attempts)
    })?
}

/// Which jobs somebody wants cancelled, under which lease.
async fn cancelling(tx: &mut Tx) -> Result<HashSet<(Uuid, i64)>, JobsError> {
    let sql = "SELECT job_id, lease FROM runtime_jobs_cancels";
    on_connection!(tx, conn => {
        let rows = sqlx::query(sql).fetch_all(&mut *conn).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    })?
}

/// The condition that a job is counted by the filter's batch. An id is hexadecimal digits and dashes.
fn in_batch(dialect: Dialect, filter: &Filter) -> String {
    let Some(batch) = filter.batch else { return "1 = 1".to_owned() };
    let batch = match dialect {
        Dialect::Sqlite => format!("unhex(replace('{batch}', '-', ''))"),
        Dialect::Postgres => format!("'{batch}'::uuid"),
    };
    format!("id IN (SELECT job_id FROM runtime_jobs_members WHERE group_id = {batch})")
}

const FITS: &str = "(CAST($1 AS TEXT) IS NULL OR tenant = $1) AND (CAST($2 AS TEXT) IS NULL OR kind = $2) \
     AND (CAST($3 AS TEXT) IS NULL OR queue = $3)";

async fn waiting(tx: &mut Tx, table: Table, filter: &Filter, now: i64) -> Result<Vec<Row>, JobsError> {
    let due = match filter.state {
        Some(JobState::Scheduled) => format!("run_at > {now}"),
        Some(JobState::Available) => format!("run_at <= {now}"),
        _ => "1 = 1".to_owned(),
    };
    let id = uuid_type(tx.dialect());
    let sql = format!(
        "SELECT {COLUMNS} FROM {} WHERE {FITS} AND (CAST($4 AS {id}) IS NULL OR id < $4) AND {due} \
         AND {} ORDER BY id DESC LIMIT $5",
        table.name(),
        in_batch(tx.dialect(), filter)
    );
    on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(&filter.tenant)
            .bind(&filter.kind)
            .bind(&filter.queue)
            .bind(filter.before.map(JobId::as_uuid))
            .bind(i64::from(filter.limit))
            .fetch_all(&mut *conn)
            .await?;
        let mut words = Words::default();
        rows.iter().map(|row| waiting_of(row, &mut words)).collect()
    })?
}

async fn finished(
    tx: &mut Tx,
    state: Option<JobState>,
    only: Option<JobId>,
    filter: &Filter,
    lock: bool,
) -> Result<Vec<(Row, End)>, JobsError> {
    let state = state.map_or_else(|| "1 = 1".to_owned(), |state| format!("state = {}", state_number(state)));
    let id = uuid_type(tx.dialect());
    let lock = if lock && tx.dialect() == Dialect::Postgres { "FOR UPDATE" } else { "" };
    let sql = format!(
        "SELECT {FINISHED} FROM runtime_jobs_finished WHERE {FITS} AND (CAST($4 AS {id}) IS NULL OR id < $4) \
         AND (CAST($6 AS {id}) IS NULL OR id = $6) AND {state} AND {} ORDER BY id DESC LIMIT $5 {lock}",
        in_batch(tx.dialect(), filter)
    );
    on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(&filter.tenant)
            .bind(&filter.kind)
            .bind(&filter.queue)
            .bind(filter.before.map(JobId::as_uuid))
            .bind(i64::from(filter.limit))
            .bind(only.map(JobId::as_uuid))
            .fetch_all(&mut *conn)
            .await?;
        let mut words = Words::default();
        rows.iter().map(|row| finished_of(row, &mut words)).collect()
    })?
}

fn uuid_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "BLOB",
        Dialect::Postgres => "UUID",
    }
}
