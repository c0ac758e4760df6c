//! Batches and links as people and handlers see them: how they stand, cancelled, redriven, forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{DbError, Dialect, Tx, on_connection};
use runtime_kernel::Uuid;

use super::awaiting::{Change, among, change_groups, listed, memberships, waits};
use super::row::{End, FINISHED, Row, Words, finished_of, number, read, state_number, state_of, timestamp};
use super::slots::Left;
use super::write::{Table, write_finished, write_waiting};
use super::{SqlStore, lease, on_reader};
use crate::error::JobsError;
use crate::job::{Failure, JobId, JobState};
use crate::links::{Batch, BatchId, Links, Prerequisite, Trigger};
use crate::store::{PREREQUISITE_FAILED, Retention, prerequisite_forgotten, rank};

/// How long, and how often, a cancelled batch waits for a member that is on its way.
const MOVING: Duration = Duration::from_millis(50);
const LOOKS: u32 = 100;

impl SqlStore {
    pub(super) async fn read_batch(
        &self,
        id: BatchId,
        tenant: Option<&str>,
    ) -> Result<Option<Batch>, JobsError> {
        let sql =
            "SELECT total, open, dead, cancelled, cause, closed, created_at, tenant FROM runtime_jobs_groups
            WHERE id = $1 AND batch = 1";
        let found = on_reader!(self.db, pool => {
            match sqlx::query(sql).bind(id.as_uuid()).fetch_optional(pool).await? {
                Some(row) => {
                    let counts: [i64; 4] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
                    let cause: Option<Uuid> = row.try_get(4)?;
                    let (closed, created): (i32, i64) = (row.try_get(5)?, row.try_get(6)?);
                    Some((counts, cause, closed, created, row.try_get::<String, _>(7)?))
                }
                None => None,
            }
        });
        let Some((counts, cause, closed, created, owner)) = found else { return Ok(None) };
        if tenant.is_some_and(|tenant| tenant != owner) {
            return Ok(None);
        }
        let [total, open, dead, cancelled] = counts;
        Ok(Some(Batch {
            id,
            total: number(total),
            open: number(open),
            completed: number(total - open - dead - cancelled),
            dead: number(dead),
            cancelled: number(cancelled),
            cause: cause.map(JobId::from),
            closed: closed == 1,
            created_at: timestamp(created),
        }))
    }

    pub(super) async fn read_links(&self, tx: &mut Tx, id: JobId) -> Result<Links, JobsError> {
        let uuid = id.as_uuid();
        let sql = "SELECT m.job_id, m.name, f.state, f.result FROM runtime_jobs_members m
            LEFT JOIN runtime_jobs_finished f ON f.id = m.job_id WHERE m.group_id = $1 ORDER BY m.place";
        let found: Vec<Prior> = on_connection!(tx, conn => {
            let rows = sqlx::query(sql).bind(uuid).fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)));
            read.collect::<Result<_, sqlx::Error>>()?
        })?;
        let mut links = Links::default();
        for (job, name, state, kept) in found {
            let state = state.map(state_of).transpose()?;
            let (mut result, mut failure) = (None, None);
            match state {
                Some(JobState::Completed) => result = kept.as_deref().map(read).transpose()?,
                Some(JobState::Cancelled) => failure = kept.as_deref().map(read).transpose()?,
                Some(JobState::Dead) => failure = last_failure(tx, job).await?,
                _ => {}
            }
            links.after.push(Prerequisite { id: JobId::from(job), name, state, result, failure });
        }
        let sql = "SELECT g.id, 0 FROM runtime_jobs_waits w JOIN runtime_jobs_groups g ON g.id = w.group_id
            WHERE w.job_id = $1 AND g.batch = 1 UNION ALL
            SELECT g.id, 1 FROM runtime_jobs_members m JOIN runtime_jobs_groups g ON g.id = m.group_id
            WHERE m.job_id = $1 AND g.batch = 1";
        let batches: Vec<(Uuid, i32)> = on_connection!(tx, conn => {
            let rows = sqlx::query(sql).bind(uuid).fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            read.collect::<Result<_, sqlx::Error>>()?
        })?;
        for (batch, member) in batches {
            let place = if member == 1 { &mut links.batch } else { &mut links.after_batch };
            *place = Some(BatchId::from(batch));
        }
        Ok(links)
    }

    /// Closes a batch and cancels members, at most so many; 0 when none is left that was not asked before.
    pub(super) async fn stop_batch(
        &self,
        id: BatchId,
        tenant: Option<&str>,
        max: u32,
    ) -> Result<u64, JobsError> {
        // Of its own: reports of members lock their leases and then the batch, what follows does it the other way round.
        let close = async |mut tx: Tx| {
            let tx = &mut tx;
            let sql =
                "UPDATE runtime_jobs_groups SET closed = 1 WHERE id = $1 AND batch = 1 RETURNING tenant";
            let owner: Option<String> = on_connection!(tx, conn => sqlx::query_scalar(sql).bind(id.as_uuid()).fetch_optional(&mut *conn).await?)?;
            if owner.is_none_or(|owner| tenant.is_some_and(|tenant| tenant != owner)) {
                return Err(JobsError::NoBatch(id));
            }
            Ok(())
        };
        self.db.transaction(&self.context(), close).await?;
        for _ in 0..LOOKS {
            let take = async |mut tx: Tx| self.stop_members(&mut tx, id.as_uuid(), max).await;
            let (count, moving) = self.db.transaction(&self.context(), take).await?;
            if count > 0 || !moving {
                return Ok(count);
            }
            self.db.clock().sleep(MOVING).await;
        }
        Err(DbError::Busy.into())
    }

    /// Says how many, and whether there is one that was seen nowhere: on its way from one table to another, or in the hands of
    /// a claim that is not over.
    async fn stop_members(&self, tx: &mut Tx, group: Uuid, max: u32) -> Result<(u64, bool), JobsError> {
        let now = self.now(tx).await?;
        let mut taken: Vec<(Table, Row)> = Vec::new();
        for table in Table::ALL {
            let left = i64::from(max) - i64::try_from(taken.len()).unwrap_or(i64::MAX);
            if left <= 0 {
                break;
            }
            taken.extend(take_members(tx, table, group, left).await?.into_iter().map(|row| (table, row)));
        }
        let mut left: BTreeMap<_, Left> = BTreeMap::new();
        for (table, row) in &taken {
            if let Some(key) = row.limit_key.as_ref().filter(|_| *table != Table::Awaiting) {
                let left = left.entry((row.lane(), key.clone())).or_default();
                match table {
                    Table::Keyed => left.parked += 1,
                    _ => left.promoted += i64::from(row.turn),
                }
            }
        }
        self.leave_ready(tx, &left).await?;
        let end = End { state: JobState::Cancelled, at: now, started: None, worker: None, result: None };
        let ends: Vec<(&Row, End)> = taken.iter().map(|(_, row)| (row, end.clone())).collect();
        write_finished(tx, &ends).await?;
        let ended = taken.iter().map(|(_, row)| (row.id, JobState::Cancelled)).collect();
        self.tell_waiters(tx, ended, now).await?;
        if !taken.is_empty() {
            return Ok((taken.len() as u64, false));
        }
        let sql = "SELECT open FROM runtime_jobs_groups WHERE id = $1";
        let open: Option<i64> = on_connection!(tx, conn => sqlx::query_scalar(sql).bind(group).fetch_optional(&mut *conn).await?)?;
        let (asked, running) = ask_running(tx, group).await?;
        Ok((asked, open.is_some_and(|open| open > running)))
    }

    /// Counts redriven jobs as open again, and lets those wait again that were cancelled because one of them had failed.
    pub(super) async fn reopen(&self, tx: &mut Tx, back: &mut [Row], now: i64) -> Result<(), JobsError> {
        let mut reopened: BTreeMap<Uuid, JobState> = BTreeMap::new();
        let found = memberships(tx, back.iter().map(|row| &row.id)).await?;
        let linked: BTreeSet<Uuid> = found.into_iter().map(|(_, job)| job).collect();
        for row in back.iter_mut().filter(|row| linked.contains(&row.id)) {
            row.linked = true;
            reopened.insert(row.id, JobState::Dead);
        }
        while !reopened.is_empty() {
            let mut changes: BTreeMap<Uuid, Change> = BTreeMap::new();
            for (group, job) in memberships(tx, reopened.keys()).await? {
                let change = changes.entry(group).or_default();
                change.open += 1;
                match reopened.get(&job) {
                    Some(JobState::Dead) => change.dead -= 1,
                    _ => change.cancelled -= 1,
                }
            }
            let counts = change_groups(tx, &changes, now).await?;
            let whole: Vec<Uuid> =
                counts.iter().filter(|(_, count)| count.failed == 0).map(|(id, _)| *id).collect();
            let candidates = waits(tx, whole.iter()).await?;
            let candidates: BTreeSet<Uuid> = candidates
                .into_iter()
                .filter(|(_, _, trigger)| *trigger == Trigger::Completed)
                .map(|(job, _, _)| job)
                .collect();
            reopened = self.restore(tx, &candidates).await?;
        }
        Ok(())
    }

    /// Lets cancelled jobs wait again, if it was a failure that cancelled them.
    async fn restore(
        &self,
        tx: &mut Tx,
        jobs: &BTreeSet<Uuid>,
    ) -> Result<BTreeMap<Uuid, JobState>, JobsError> {
        if jobs.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Who is just being waited for by a new one is locked by that: it is not to be left out.
        let lock = super::patient_lock(tx.dialect());
        let sql = format!(
            "SELECT {FINISHED} FROM runtime_jobs_finished WHERE id {} AND state = {} AND result LIKE $2
             ORDER BY id DESC {lock}",
            among(tx.dialect()),
            state_number(JobState::Cancelled)
        );
        let listed = listed(jobs.iter())?;
        let rows: Vec<(Row, End)> = on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(&listed)
                .bind(format!("%{PREREQUISITE_FAILED}%"))
                .fetch_all(&mut *conn)
                .await?;
            let mut words = Words::default();
            rows.iter().map(|row| finished_of(row, &mut words)).collect::<Result<_, JobsError>>()?
        })?;
        let mut back = Vec::with_capacity(rows.len());
        for (row, _) in rows {
            // Whoever holds the key by now has it.
            if let Some(key) = &row.unique_key
                && self.take(tx, key, JobId::from(row.id), None, false).await?.is_some()
            {
                continue;
            }
            let sql = "DELETE FROM runtime_jobs_finished WHERE id = $1";
            on_connection!(tx, conn => sqlx::query(sql).bind(row.id).execute(&mut *conn).await?.rows_affected())?;
            let priority = i16::try_from(row.priority).unwrap_or_default();
            back.push(Row { rank: rank(row.run_at, priority, self.ageing), ..row });
        }
        let found = memberships(tx, back.iter().map(|row| &row.id)).await?;
        let linked: BTreeSet<Uuid> = found.into_iter().map(|(_, job)| job).collect();
        for row in &mut back {
            row.linked = linked.contains(&row.id);
        }
        write_waiting(tx, Table::Awaiting, &back).await?;
        Ok(linked.into_iter().map(|id| (id, JobState::Cancelled)).collect())
    }

    /// Forgets the links of jobs that are forgotten; what has waited for one of them to be redriven has waited in vain.
    pub(super) async fn forget_links(
        &self,
        tx: &mut Tx,
        gone: &[Uuid],
        failed: bool,
        now: i64,
    ) -> Result<(), JobsError> {
        if gone.is_empty() {
            return Ok(());
        }
        if failed {
            let mut causes: BTreeMap<Uuid, Uuid> = BTreeMap::new();
            for (group, job) in memberships(tx, gone.iter()).await? {
                let cause = causes.entry(group).or_insert(job);
                *cause = job.min(*cause);
            }
            let mut vain: BTreeMap<Uuid, Failure> = BTreeMap::new();
            for (job, group, trigger) in waits(tx, causes.keys()).await? {
                if let Some(cause) = causes.get(&group).filter(|_| trigger == Trigger::Eventually) {
                    vain.insert(job, prerequisite_forgotten(JobId::from(*cause)));
                }
            }
            let told = self.give_up(tx, vain, now).await?;
            self.tell_waiters(tx, told, now).await?;
        }
        let listed = listed(gone.iter())?;
        for (table, column) in [("waits", "job_id"), ("members", "group_id"), ("groups", "id")] {
            let sql = format!("DELETE FROM runtime_jobs_{table} WHERE {column} {}", among(tx.dialect()));
            on_connection!(tx, conn => {
                sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).execute(&mut *conn).await?.rows_affected()
            })?;
        }
        Ok(())
    }

    /// Forgets batches that have been over for longer than anything of them may still be redriven, and no more than so many
    /// of their members.
    pub(super) async fn forget_batches(
        &self,
        tx: &mut Tx,
        retention: &Retention,
        now: i64,
        max: u32,
    ) -> Result<(), JobsError> {
        let Some(keep) = retention.longest() else { return Ok(()) };
        let before = now.saturating_sub(super::row::micros(keep));
        let sql = format!(
            "SELECT id FROM runtime_jobs_groups WHERE batch = 1 AND open = 0 AND changed_at < $1
             AND NOT EXISTS (SELECT 1 FROM runtime_jobs_waits w JOIN runtime_jobs_awaiting a ON a.id = w.job_id
                WHERE w.group_id = runtime_jobs_groups.id) ORDER BY changed_at, id LIMIT 10 {}",
            super::locking(tx.dialect())
        );
        let old: Vec<Uuid> = on_connection!(tx, conn => {
            sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(before).fetch_all(&mut *conn).await?
        })?;
        for id in old {
            let sql = "DELETE FROM runtime_jobs_members WHERE group_id = $1 AND job_id IN
                (SELECT job_id FROM runtime_jobs_members WHERE group_id = $1 LIMIT $2)";
            let gone = on_connection!(tx, conn => {
                sqlx::query(sql).bind(id).bind(i64::from(max)).execute(&mut *conn).await?.rows_affected()
            })?;
            if gone >= u64::from(max) {
                break;
            }
            let sql = "DELETE FROM runtime_jobs_groups WHERE id = $1";
            on_connection!(tx, conn => sqlx::query(sql).bind(id).execute(&mut *conn).await?.rows_affected())?;
        }
        Ok(())
    }
}

/// A job another waits for, its name, its state and what it left.
type Prior = (Uuid, Option<String>, Option<i32>, Option<String>);

/// What a finished job must not be, to be forgotten: one that another waits for, or is running by, now.
pub(super) const NOT_AWAITED: &str = "NOT EXISTS (SELECT 1 FROM runtime_jobs_members m
    JOIN runtime_jobs_groups g ON g.id = m.group_id AND g.batch = 0
    WHERE m.job_id = runtime_jobs_finished.id
    AND NOT EXISTS (SELECT 1 FROM runtime_jobs_finished w WHERE w.id = m.group_id))";

/// What a handler's last attempt at a dead job left.
async fn last_failure(tx: &mut Tx, job: Uuid) -> Result<Option<Failure>, JobsError> {
    let sql = "SELECT error FROM runtime_jobs_attempts WHERE job_id = $1 ORDER BY number DESC LIMIT 1";
    let error: Option<Option<String>> =
        on_connection!(tx, conn => sqlx::query_scalar(sql).bind(job).fetch_optional(&mut *conn).await?)?;
    error.flatten().as_deref().map(read).transpose()
}

/// Takes members of a batch out of a table of waiting jobs.
async fn take_members(tx: &mut Tx, table: Table, group: Uuid, max: i64) -> Result<Vec<Row>, JobsError> {
    let lock = match tx.dialect() {
        Dialect::Sqlite => "",
        Dialect::Postgres => "FOR UPDATE OF j SKIP LOCKED",
    };
    let name = table.name();
    let sql = format!(
        "DELETE FROM {name} WHERE id IN (SELECT j.id FROM runtime_jobs_members m JOIN {name} j ON j.id = m.job_id
         WHERE m.group_id = $1 ORDER BY m.job_id LIMIT $2 {lock}) RETURNING {}",
        super::row::COLUMNS
    );
    let mut rows: Vec<Row> = on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(group).bind(max).fetch_all(&mut *conn).await?;
        let mut words = Words::default();
        rows.iter().map(|row| super::row::waiting_of(row, &mut words)).collect::<Result<_, JobsError>>()?
    })?;
    rows.sort_unstable_by_key(|row| row.id);
    Ok(rows)
}

/// Asks the members of a batch that run to stop; says how many had not been asked before, and how many there are.
async fn ask_running(tx: &mut Tx, group: Uuid) -> Result<(u64, i64), JobsError> {
    let (mut asked, mut running_now) = (0, 0);
    for standing in lease::all(tx, None).await? {
        let running: Vec<Uuid> =
            standing.lease.open(&standing.ended).filter(|row| row.linked).map(|row| row.id).collect();
        if running.is_empty() {
            continue;
        }
        let mine: Vec<Uuid> = memberships(tx, running.iter())
            .await?
            .into_iter()
            .filter(|(of, _)| *of == group)
            .map(|(_, job)| job)
            .collect();
        for job in mine {
            let place = standing.lease.place(job);
            let Some(place) = place else { continue };
            if !lease::lock_any(tx, standing.lease.id, place).await? {
                continue;
            }
            running_now += 1;
            let sql = "INSERT INTO runtime_jobs_cancels (job_id, lease) VALUES ($1, $2)
                ON CONFLICT (job_id) DO UPDATE SET lease = excluded.lease WHERE runtime_jobs_cancels.lease <> excluded.lease";
            asked += on_connection!(tx, conn => {
                sqlx::query(sql).bind(job).bind(standing.lease.id).execute(&mut *conn).await?.rows_affected()
            })?;
        }
    }
    Ok((asked, running_now))
}
