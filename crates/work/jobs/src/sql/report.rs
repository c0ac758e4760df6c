//! Ends jobs: what workers report, and what leases that ran out leave behind.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Uuid;

use super::claim::ALL;
use super::lease::Lease;
use super::row::{End, Ended, Row, micros};
use super::slots::{Key, Left};
use super::write::{Ending, Table, write_attempt, write_finished, write_waiting};
use super::{SqlStore, clock, locking};
use crate::error::JobsError;
use crate::job::{AttemptOutcome, Failure, JobState};
use crate::store::{JobStore as _, Receipt, Report, Rescued, Verdict, lost, rank};

/// What a batch changes, gathered before anything is written.
#[derive(Default)]
struct Changes<'a> {
    finished: Vec<(&'a Row, End)>,
    waiting: Vec<Row>,
    endings: Vec<Ending<'a>>,
    left: BTreeMap<Key, Left>,
    /// Jobs that have been linked since they were claimed.
    linked: HashSet<Uuid>,
}

/// What taking reports has come to.
pub(super) struct Settled {
    pub(super) receipts: Vec<Receipt>,
    /// Leases that are over.
    pub(super) over: Vec<i64>,
    /// Whether jobs that waited for these may run now.
    pub(super) released: bool,
}

impl SqlStore {
    pub(super) async fn take_reports(&self, reports: &[Report]) -> Result<Vec<Receipt>, JobsError> {
        let settled = self
            .db
            .transaction(&self.context(), async |mut tx: Tx| self.end_jobs(&mut tx, reports).await)
            .await?;
        if settled.released {
            self.announce();
        }
        let mut kept = self.kept();
        for lease in settled.over {
            kept.remove(&lease);
        }
        Ok(settled.receipts)
    }

    /// Takes reports.
    pub(super) async fn end_jobs(&self, tx: &mut Tx, reports: &[Report]) -> Result<Settled, JobsError> {
        let fences: Vec<i64> = reports.iter().map(|report| fence_of(report.fence)).collect();
        let mut standing = self.lock_leases(tx, &fences).await?;
        let mut leases: BTreeMap<i64, Arc<Lease>> = BTreeMap::new();
        for (id, held) in &standing {
            let mut lease = self.lease(tx, *id).await?;
            // A server restored to an earlier day gives numbers again: what is kept under one may be another lease's.
            if lease.as_ref().is_some_and(|lease| lease.claimed_at != held.claimed_at) {
                self.kept().remove(id);
                lease = self.lease(tx, *id).await?;
            }
            if let Some(lease) = lease {
                leases.insert(*id, lease);
            }
        }
        let mut stopped = HashSet::new();
        let needs_cancels = |verdict: &Verdict| matches!(verdict, Verdict::Retry(..) | Verdict::Released(_));
        if reports.iter().any(|report| needs_cancels(&report.verdict)) {
            stopped = cancels(tx, &standing.keys().copied().collect::<Vec<_>>()).await?;
        }
        let mut receipts = Vec::with_capacity(reports.len());
        let mut changes = Changes::default();
        for (report, fence) in reports.iter().zip(&fences) {
            let place = leases.get(fence).and_then(|lease| lease.place(report.id.as_uuid()));
            let held = standing.get_mut(fence).filter(|held| held.until >= held.now);
            let (Some(lease), Some(place), Some(held)) = (leases.get(fence), place, held) else {
                receipts.push(Receipt::Stale);
                continue;
            };
            let Some(row) = lease.rows.get(place).filter(|_| !held.ended.has(place)) else {
                receipts.push(Receipt::Stale);
                continue;
            };
            held.ended.set(place);
            held.touched = true;
            if held.ended.links(place, lease.rows.len()) {
                changes.linked.insert(row.id);
            }
            changes.leaves(row);
            self.apply(&mut changes, lease, row, held.now, &report.verdict, stopped.contains(&row.id));
            receipts.push(Receipt::Accepted);
        }
        let released = changes.write(self, tx).await?;
        let mut over: Vec<i64> = fences.into_iter().filter(|fence| !standing.contains_key(fence)).collect();
        for (id, held) in standing.iter().filter(|(_, held)| held.touched) {
            let size = leases.get(id).map_or(0, |lease| lease.rows.len());
            if held.ended.count(size) >= size {
                end_lease(tx, *id).await?;
                over.push(*id);
            } else {
                let sql = "UPDATE runtime_jobs_leases SET ended = $2 WHERE id = $1";
                on_connection!(tx, conn => sqlx::query(sql).bind(id).bind(&held.ended.0).execute(&mut *conn).await?.rows_affected())?;
            }
        }
        Ok(Settled { receipts, over, released })
    }

    /// Locks leases against other reports and rescues, in one order.
    pub(super) async fn lock_leases(
        &self,
        tx: &mut Tx,
        ids: &[i64],
    ) -> Result<BTreeMap<i64, Held>, JobsError> {
        let distinct: HashSet<i64> = ids.iter().copied().collect();
        let mut distinct: Vec<String> = distinct.iter().map(ToString::to_string).collect();
        distinct.sort_unstable();
        let lock = super::patient_lock(tx.dialect());
        let now = clock(tx.dialect(), "$1");
        let listed = if tx.dialect() == Dialect::Postgres {
            "(SELECT unnest(string_to_array($2, ','))::bigint)".to_owned()
        } else {
            "(SELECT value FROM json_each('[' || $2 || ']'))".to_owned()
        };
        let sql = format!(
            "SELECT id, until, ended, {now}, claimed_at FROM runtime_jobs_leases WHERE id IN {listed} ORDER BY id {lock}"
        );
        let listed = distinct.join(",");
        on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(self.local_now())
                .bind(&listed)
                .fetch_all(&mut *conn)
                .await?;
            let mut held = BTreeMap::new();
            for row in rows {
                let (until, ended, now) = (row.try_get(1)?, Ended(row.try_get(2)?), row.try_get(3)?);
                held.insert(row.try_get(0)?, Held { until, ended, now, claimed_at: row.try_get(4)?, touched: false });
            }
            Ok(held)
        })?
    }

    fn apply<'a>(
        &self,
        changes: &mut Changes<'a>,
        lease: &'a Lease,
        row: &'a Row,
        now: i64,
        verdict: &'a Verdict,
        stop: bool,
    ) {
        let (outcome, failure) = match verdict {
            Verdict::Completed(_) => (AttemptOutcome::Completed, None),
            Verdict::Dead(failure) | Verdict::Retry(_, failure) => (AttemptOutcome::Failed, Some(failure)),
            Verdict::Cancelled => (AttemptOutcome::Cancelled, None),
            Verdict::Released(_) => (AttemptOutcome::Released, None),
        };
        let result = match verdict {
            Verdict::Completed(result) => Some(result.to_string()),
            _ => None,
        };
        // A completed attempt is told by its job's last row; every other is written down.
        if !matches!(verdict, Verdict::Completed(_)) {
            changes.ending(lease, row, now, outcome, failure);
        }
        match verdict {
            Verdict::Completed(_) => changes.finish(lease, row, now, JobState::Completed, result),
            Verdict::Dead(_) => changes.finish(lease, row, now, JobState::Dead, None),
            Verdict::Retry(delay, _) if !stop => {
                self.again(changes, row, now.saturating_add(micros(*delay)), 0);
            }
            Verdict::Released(delay) if !stop && delay.is_zero() => Self::give_back(changes, row, 1),
            Verdict::Released(delay) if !stop => {
                self.again(changes, row, now.saturating_add(micros(*delay)), 1);
            }
            Verdict::Cancelled | Verdict::Retry(..) | Verdict::Released(_) => {
                changes.finish(lease, row, now, JobState::Cancelled, None);
            }
        }
    }

    /// Gives a job back as if it had not been claimed: it keeps its place in the line.
    fn give_back(changes: &mut Changes<'_>, row: &Row, refund: i32) {
        changes.waiting.push(Row { attempt: row.attempt - refund, ..row.clone() });
    }

    /// Lets a job wait again; `refund` attempts are not counted.
    fn again(&self, changes: &mut Changes<'_>, row: &Row, at: i64, refund: i32) {
        let priority = i16::try_from(row.priority).unwrap_or_default();
        changes.waiting.push(Row {
            rank: rank(at, priority, self.ageing),
            run_at: at,
            attempt: row.attempt - refund,
            ..row.clone()
        });
    }

    /// Ends leases that ran out.
    pub(super) async fn take_back(&self, max: u32) -> Result<Rescued, JobsError> {
        let rescue = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = clock(tx.dialect(), "$1");
            let sql = format!(
                "SELECT id, ended, {now} FROM runtime_jobs_leases WHERE until < {now} ORDER BY until, id LIMIT $2 {}",
                locking(tx.dialect())
            );
            let expired = on_connection!(tx, conn => {
                let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                    .bind(self.local_now())
                    .bind(i64::from(max))
                    .fetch_all(&mut *conn)
                    .await?;
                let mut expired = Vec::with_capacity(rows.len());
                for row in rows {
                    expired.push((row.try_get::<i64, _>(0)?, Ended(row.try_get(1)?), row.try_get::<i64, _>(2)?));
                }
                expired
            })?;
            if expired.is_empty() {
                return Ok((Rescued::default(), Vec::new(), false));
            }
            let ids: Vec<i64> = expired.iter().map(|(id, _, _)| *id).collect();
            let stopped = cancels(tx, &ids).await?;
            let (mut rescued, mut released) = (Rescued::default(), false);
            let failure = lost();
            for (id, ended, now) in expired {
                let Some(lease) = self.lease(tx, id).await? else { continue };
                let mut changes = Changes::default();
                for row in lease.open(&ended) {
                    if lease.place(row.id).is_some_and(|place| ended.links(place, lease.rows.len())) {
                        changes.linked.insert(row.id);
                    }
                    changes.leaves(row);
                    changes.ending(&lease, row, now, AttemptOutcome::Lost, Some(&failure));
                    if stopped.contains(&row.id) {
                        changes.finish(&lease, row, now, JobState::Cancelled, None);
                        rescued.dead += 1;
                    } else if row.attempt >= row.max_attempts {
                        changes.finish(&lease, row, now, JobState::Dead, None);
                        rescued.dead += 1;
                    } else {
                        Self::give_back(&mut changes, row, 0);
                        rescued.returned += 1;
                    }
                }
                released |= changes.write(self, tx).await?;
                end_lease(tx, id).await?;
            }
            Ok::<_, JobsError>((rescued, ids, released))
        };
        let (rescued, over, released) = self.db.transaction(&self.context(), rescue).await?;
        if released {
            self.announce();
        }
        let mut kept = self.kept();
        for id in over {
            kept.remove(&id);
        }
        Ok(rescued)
    }
}

/// A lease under lock.
pub(super) struct Held {
    pub(super) until: i64,
    pub(super) ended: Ended,
    pub(super) now: i64,
    claimed_at: i64,
    touched: bool,
}

impl<'a> Changes<'a> {
    /// A job that ran no longer counts against its key's limit.
    fn leaves(&mut self, row: &Row) {
        if let Some(key) = &row.limit_key {
            self.left.entry((row.lane(), key.clone())).or_default().running += 1;
        }
    }

    fn ending(
        &mut self,
        lease: &'a Lease,
        row: &'a Row,
        at: i64,
        outcome: AttemptOutcome,
        failure: Option<&'a Failure>,
    ) {
        let (worker, started) = (lease.worker.as_str(), lease.claimed_at);
        self.endings.push(Ending { row, worker, started, at, outcome, failure });
    }

    fn finish(&mut self, lease: &Lease, row: &'a Row, at: i64, state: JobState, result: Option<String>) {
        let (worker, started) = (Some(lease.worker.clone()), Some(lease.claimed_at));
        self.finished.push((row, End { state, at, started, worker, result }));
    }

    /// Says whether jobs that waited for these may run now.
    async fn write(mut self, store: &SqlStore, tx: &mut Tx) -> Result<bool, JobsError> {
        for ending in &self.endings {
            write_attempt(tx, ending).await?;
        }
        write_finished(tx, &self.finished).await?;
        if !self.linked.is_empty() {
            for row in &mut self.waiting {
                row.linked |= self.linked.contains(&row.id);
            }
        }
        for row in &self.waiting {
            store.due.arrived(ALL, row.run_at);
        }
        write_waiting(tx, Table::Later, &self.waiting).await?;
        store.leave(tx, &self.left).await?;
        let linked = self.finished.iter().filter(|(row, _)| row.linked || self.linked.contains(&row.id));
        let ended: Vec<(Uuid, JobState)> = linked.map(|(row, end)| (row.id, end.state)).collect();
        match self.finished.first() {
            Some((_, end)) if !ended.is_empty() => store.tell_waiters(tx, ended, end.at).await,
            _ => Ok(false),
        }
    }
}

/// Jobs under these leases somebody wants cancelled.
async fn cancels(tx: &mut Tx, leases: &[i64]) -> Result<HashSet<Uuid>, JobsError> {
    let sql = "SELECT job_id FROM runtime_jobs_cancels WHERE lease = $1";
    let mut found = HashSet::new();
    for lease in leases {
        let ids: Vec<Uuid> =
            on_connection!(tx, conn => sqlx::query_scalar(sql).bind(lease).fetch_all(&mut *conn).await?)?;
        found.extend(ids);
    }
    Ok(found)
}

async fn end_lease(tx: &mut Tx, id: i64) -> Result<(), JobsError> {
    for sql in
        ["DELETE FROM runtime_jobs_leases WHERE id = $1", "DELETE FROM runtime_jobs_cancels WHERE lease = $1"]
    {
        on_connection!(tx, conn => sqlx::query(sql).bind(id).execute(&mut *conn).await?.rows_affected())?;
    }
    Ok(())
}

fn fence_of(fence: u64) -> i64 {
    i64::try_from(fence).unwrap_or(-1)
}
