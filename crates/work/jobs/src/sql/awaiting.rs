//! Jobs that wait for others: let go, or cancelled, as those end.
//!
//! A group counts jobs: the members of a batch, or those one job waits for. Whoever ends some of them takes them off the
//! group's count under the lock of its row, so that exactly one sees the count that decides; a waiting job is taken out of
//! its table once. A report ends hundreds of members of a batch by one update of the batch's row.

use std::collections::{BTreeMap, BTreeSet};

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Uuid;

use super::SqlStore;
use super::row::{COLUMNS, End, Row, Words, json, waiting_of};
use super::write::{Table, write_finished, write_waiting};
use crate::error::JobsError;
use crate::job::{Failure, JobId, JobState};
use crate::links::{Decision, Trigger};
use crate::store::{nothing_failed, prerequisite_failed, rank};

/// What some jobs' ends change about a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) open: i64,
    pub(super) dead: i64,
    pub(super) cancelled: i64,
    /// The first of them that failed.
    pub(super) cause: Option<Uuid>,
}

impl Change {
    pub(super) fn add(&mut self, id: Uuid, state: JobState) {
        self.open -= 1;
        match state {
            JobState::Dead => self.dead += 1,
            JobState::Cancelled => self.cancelled += 1,
            _ => return,
        }
        self.cause = self.cause.into_iter().chain([id]).min();
    }
}

/// A group's counts, under lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) open: i64,
    pub(super) failed: i64,
    pub(super) cause: Option<Uuid>,
}

impl SqlStore {
    /// Tells those who wait for these jobs that they have ended; and those who wait for them, if that ends them. Says
    /// whether any may run now.
    pub(super) async fn tell_waiters(
        &self,
        tx: &mut Tx,
        ended: Vec<(Uuid, JobState)>,
        now: i64,
    ) -> Result<bool, JobsError> {
        let (mut ended, mut released) = (ended, false);
        while !ended.is_empty() {
            let states: BTreeMap<Uuid, JobState> = ended.into_iter().collect();
            let mut changes: BTreeMap<Uuid, Change> = BTreeMap::new();
            for (group, job) in memberships(tx, states.keys()).await? {
                if let Some(state) = states.get(&job) {
                    changes.entry(group).or_default().add(job, *state);
                }
            }
            let counts = change_groups(tx, &changes, now).await?;
            // A member more or less decides nothing while others are open and none has failed.
            let decided = counts.into_iter().filter(|(id, count)| {
                count.open == 0 || changes.get(id).is_some_and(|change| change.cause.is_some())
            });
            let decided = decided.collect();
            let (any, gone) = self.settle(tx, &decided, now).await?;
            released |= any;
            ended = gone;
        }
        Ok(released)
    }

    /// Lets go or cancels what waits for these groups, by their counts. Says whether any may run, and which were cancelled
    /// that others wait for in turn.
    pub(super) async fn settle(
        &self,
        tx: &mut Tx,
        groups: &BTreeMap<Uuid, Count>,
        now: i64,
    ) -> Result<(bool, Vec<(Uuid, JobState)>), JobsError> {
        let (mut run, mut cancel) = (BTreeSet::new(), BTreeMap::new());
        for (job, group, trigger) in waits(tx, groups.keys()).await? {
            let Some(count) = groups.get(&group) else { continue };
            match trigger.decide(count.open, count.failed) {
                Decision::Wait => {}
                Decision::Run => {
                    run.insert(job);
                }
                Decision::Failed => {
                    let cause = count.cause.unwrap_or(group);
                    cancel.insert(job, prerequisite_failed(JobId::from(cause)));
                }
                Decision::Spared => {
                    cancel.insert(job, nothing_failed());
                }
            }
        }
        let rows: Vec<Row> = take_awaiting(tx, run.iter()).await?;
        let any = !rows.is_empty();
        self.release(tx, rows, now).await?;
        let gone = self.give_up(tx, cancel, now).await?;
        Ok((any, gone))
    }

    /// Puts jobs that have waited for others in the line, as if they were enqueued now.
    async fn release(&self, tx: &mut Tx, rows: Vec<Row>, now: i64) -> Result<(), JobsError> {
        let (mut ready, mut later) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let run_at = row.run_at.max(now);
            let priority = i16::try_from(row.priority).unwrap_or_default();
            let row = Row { run_at, rank: rank(run_at, priority, self.ageing), ..row };
            if run_at > now {
                later.push(row);
            } else {
                self.low.arrived(row.lane(), row.rank);
                ready.push(row);
            }
        }
        write_waiting(tx, Table::Ready, &ready).await?;
        write_waiting(tx, Table::Later, &later).await
    }

    /// Cancels jobs that never can run; says which of them others wait for.
    pub(super) async fn give_up(
        &self,
        tx: &mut Tx,
        jobs: BTreeMap<Uuid, Failure>,
        now: i64,
    ) -> Result<Vec<(Uuid, JobState)>, JobsError> {
        let rows = take_awaiting(tx, jobs.keys()).await?;
        let mut ends = Vec::with_capacity(rows.len());
        for row in &rows {
            let result = jobs.get(&row.id).map(json).transpose()?;
            ends.push((
                row,
                End { state: JobState::Cancelled, at: now, started: None, worker: None, result },
            ));
        }
        write_finished(tx, &ends).await?;
        let linked = rows.iter().filter(|row| row.linked);
        Ok(linked.map(|row| (row.id, JobState::Cancelled)).collect())
    }
}

/// Which groups count these jobs.
pub(super) async fn memberships(
    tx: &mut Tx,
    jobs: impl Iterator<Item = &Uuid>,
) -> Result<Vec<(Uuid, Uuid)>, JobsError> {
    let listed = listed(jobs)?;
    let sql =
        format!("SELECT group_id, job_id FROM runtime_jobs_members WHERE job_id {}", among(tx.dialect()));
    on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
        let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        read.collect::<Result<Vec<(Uuid, Uuid)>, sqlx::Error>>()?
    })
    .map_err(JobsError::from)
}

/// Locks groups in one order, so that no two wait for each other, and reads their counts.
pub(super) async fn lock_groups(
    tx: &mut Tx,
    groups: impl Iterator<Item = &Uuid>,
) -> Result<BTreeMap<Uuid, Count>, JobsError> {
    let listed = listed(groups)?;
    let lock = super::patient_lock(tx.dialect());
    let sql = format!(
        "SELECT id, open, dead + cancelled, cause FROM runtime_jobs_groups WHERE id {} ORDER BY id {lock}",
        among(tx.dialect())
    );
    on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
        let mut counts = BTreeMap::new();
        for row in rows {
            let count = Count { open: row.try_get(1)?, failed: row.try_get(2)?, cause: row.try_get(3)? };
            counts.insert(row.try_get(0)?, count);
        }
        Ok(counts)
    })?
}

/// Changes the counts of groups; says what they then are.
pub(super) async fn change_groups(
    tx: &mut Tx,
    changes: &BTreeMap<Uuid, Change>,
    now: i64,
) -> Result<BTreeMap<Uuid, Count>, JobsError> {
    if changes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut counts = lock_groups(tx, changes.keys()).await?;
    let rows: Vec<_> = changes
        .iter()
        .map(|(id, change)| {
            let Change { open, dead, cancelled, cause } = change;
            serde_json::json!({ "id": id, "open": open, "dead": dead, "cancelled": cancelled, "cause": cause })
        })
        .collect();
    let listed = json(&rows)?;
    let rows = match tx.dialect() {
        Dialect::Sqlite => {
            "SELECT unhex(replace(value ->> 'id', '-', '')) AS id, value ->> 'open' AS open, value ->> 'dead' AS dead,
             value ->> 'cancelled' AS cancelled, unhex(replace(value ->> 'cause', '-', '')) AS cause FROM json_each($1)"
        }
        Dialect::Postgres => {
            "SELECT * FROM jsonb_to_recordset($1::text::jsonb)
             AS r (id uuid, open bigint, dead bigint, cancelled bigint, cause uuid)"
        }
    };
    // The cause is the first that failed, for as long as any has.
    let sql = format!(
        "UPDATE runtime_jobs_groups SET open = runtime_jobs_groups.open + u.open,
         dead = runtime_jobs_groups.dead + u.dead, cancelled = runtime_jobs_groups.cancelled + u.cancelled,
         cause = CASE WHEN runtime_jobs_groups.dead + u.dead + runtime_jobs_groups.cancelled + u.cancelled > 0
            THEN COALESCE(runtime_jobs_groups.cause, u.cause) END,
         changed_at = $2 FROM ({rows}) AS u WHERE runtime_jobs_groups.id = u.id"
    );
    on_connection!(tx, conn => {
        sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).bind(now).execute(&mut *conn).await?.rows_affected()
    })?;
    for (id, count) in &mut counts {
        let Some(change) = changes.get(id) else { continue };
        count.open += change.open;
        count.failed += change.dead + change.cancelled;
        count.cause = count.cause.or(change.cause).filter(|_| count.failed > 0);
    }
    Ok(counts)
}

/// What waits, or has waited, for these groups.
pub(super) async fn waits(
    tx: &mut Tx,
    groups: impl Iterator<Item = &Uuid>,
) -> Result<Vec<(Uuid, Uuid, Trigger)>, JobsError> {
    let listed = listed(groups)?;
    if listed == "[]" {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT job_id, group_id, rule FROM runtime_jobs_waits WHERE group_id {} ORDER BY job_id",
        among(tx.dialect())
    );
    on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
        let mut waits = Vec::with_capacity(rows.len());
        for row in rows {
            waits.push((row.try_get(0)?, row.try_get(1)?, Trigger::of(row.try_get(2)?)?));
        }
        Ok(waits)
    })?
}

/// Takes jobs out of those that wait for others: each once, whoever else tries.
async fn take_awaiting(tx: &mut Tx, jobs: impl Iterator<Item = &Uuid>) -> Result<Vec<Row>, JobsError> {
    let listed = listed(jobs)?;
    if listed == "[]" {
        return Ok(Vec::new());
    }
    let sql =
        format!("DELETE FROM runtime_jobs_awaiting WHERE id {} RETURNING {COLUMNS}", among(tx.dialect()));
    let mut rows: Vec<Row> = on_connection!(tx, conn => {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(&listed).fetch_all(&mut *conn).await?;
        let mut words = Words::default();
        rows.iter().map(|row| waiting_of(row, &mut words)).collect::<Result<_, JobsError>>()?
    })?;
    rows.sort_unstable_by_key(|row| row.id);
    Ok(rows)
}

/// Ids as the parameter of [`among`].
pub(super) fn listed<'a>(ids: impl Iterator<Item = &'a Uuid>) -> Result<String, JobsError> {
    json(&ids.collect::<Vec<_>>())
}

/// The condition that a column is among the ids of the first parameter: an array on Postgres, so that it uses the index
/// whatever the planner believes about tables that fill and empty.
pub(super) fn among(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "IN (SELECT unhex(replace(value, '-', '')) FROM json_each($1))",
        Dialect::Postgres => {
            "= ANY(ARRAY(SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)))"
        }
    }
}
