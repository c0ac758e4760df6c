//! What keeps a store in order: heartbeats, retention, counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};
use runtime_kernel::Uuid;

use super::row::{Ended, json, micros, number, read, state_number, state_of, timestamp};
use super::{SqlStore, clock, lease, locking};
use crate::error::JobsError;
use crate::job::{JobId, JobState};
use crate::store::{Depth, Pulse, Retention, Stats};

/// A worker not heard from for a day is forgotten; in microseconds.
const FORGOTTEN: i64 = 24 * 3600 * 1_000_000;

impl SqlStore {
    /// One heartbeat of a worker process: itself, and its leases, in two statements however many jobs it has.
    pub(super) async fn beat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[u64],
        lease: Duration,
    ) -> Result<Pulse, JobsError> {
        let kinds = json(&kinds)?;
        let listed = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let beat = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = clock(tx.dialect(), "$3");
            let sql = format!(
                "INSERT INTO runtime_jobs_workers (worker, kinds, seen) VALUES ($1, $2, {now})
                 ON CONFLICT (worker) DO UPDATE SET kinds = excluded.kinds, seen = excluded.seen"
            );
            on_connection!(tx, conn => {
                sqlx::query(AssertSqlSafe(sql.clone()))
                    .bind(worker)
                    .bind(&kinds)
                    .bind(self.local_now())
                    .execute(&mut *conn)
                    .await?
                .rows_affected()
            })?;
            if held.is_empty() {
                return Ok(Pulse::default());
            }
            let now = clock(tx.dialect(), "$1");
            // Locked in the order reports lock them: an update alone takes them as they lie. The time is read once all
            // are locked: a lease that ran out while another was waited for is over, and its jobs have been told so.
            let lock = super::patient_lock(tx.dialect());
            let sql = format!(
                "WITH held AS (SELECT id FROM runtime_jobs_leases WHERE id IN ({listed}) ORDER BY id {lock}),
                 locked AS (SELECT {now} AS at FROM (SELECT count(*) FROM held) AS every)
                 UPDATE runtime_jobs_leases SET until = (SELECT at FROM locked) + $2
                 WHERE id IN (SELECT id FROM held) AND until >= (SELECT at FROM locked) RETURNING id, ended"
            );
            let extended = on_connection!(tx, conn => {
                let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                    .bind(self.local_now())
                    .bind(micros(lease))
                    .fetch_all(&mut *conn)
                    .await?;
                let read = rows.iter().map(|row| Ok((row.try_get(0)?, Ended(row.try_get(1)?))));
                read.collect::<Result<BTreeMap<i64, Ended>, sqlx::Error>>()?
            })?;
            let sql = "SELECT job_id, lease FROM runtime_jobs_cancels";
            let cancels = on_connection!(tx, conn => {
                let rows = sqlx::query(sql).fetch_all(&mut *conn).await?;
                let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                read.collect::<Result<Vec<(Uuid, i64)>, sqlx::Error>>()?
            })?;
            let mut pulse = Pulse::default();
            for (id, fence) in cancels {
                let Some(ended) = extended.get(&fence) else { continue };
                let Some(lease) = self.lease(tx, fence).await? else { continue };
                // One that has ended needs no telling.
                if lease.place(id).is_some_and(|place| !ended.has(place)) {
                    pulse.cancel.push(JobId::from(id));
                }
            }
            let mut kept = self.kept();
            for lost in held.iter().map(|held| number(i64::try_from(*held).unwrap_or(-1))) {
                if !extended.contains_key(&lost) {
                    kept.remove(&lost);
                }
            }
            drop(kept);
            pulse.held = extended.into_keys().map(number).collect();
            Ok::<_, JobsError>(pulse)
        };
        self.db.transaction(&self.context(), beat).await
    }

    pub(super) async fn forget(
        &self,
        tx: &mut Tx,
        retention: &Retention,
        max: u32,
    ) -> Result<u64, JobsError> {
        let now = self.now(tx).await?;
        let mut pruned: u64 = 0;
        for (state, keep) in [
            (JobState::Completed, retention.completed),
            (JobState::Dead, retention.dead),
            (JobState::Cancelled, retention.cancelled),
        ] {
            let Some(keep) = keep else { continue };
            let left = i64::from(max) - i64::try_from(pruned).unwrap_or(i64::MAX);
            if left <= 0 {
                break;
            }
            let old = format!(
                "SELECT id FROM runtime_jobs_finished WHERE state = {} AND finished_at < $1
                 AND {} ORDER BY finished_at, id LIMIT $2 {}",
                state_number(state),
                super::batch::NOT_AWAITED,
                locking(tx.dialect())
            );
            let sql = match tx.dialect() {
                Dialect::Sqlite => {
                    format!("DELETE FROM runtime_jobs_finished WHERE id IN ({old}) RETURNING id, claims")
                }
                Dialect::Postgres => format!(
                    "DELETE FROM runtime_jobs_finished WHERE id = ANY(ARRAY({old})) RETURNING id, claims"
                ),
            };
            let before = now.saturating_sub(micros(keep));
            let gone = on_connection!(tx, conn => {
                let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(before).bind(left).fetch_all(&mut *conn).await?;
                let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                read.collect::<Result<Vec<(Uuid, i32)>, sqlx::Error>>()?
            })?;
            pruned += gone.len() as u64;
            let ids: Vec<Uuid> = gone.iter().map(|(id, _)| *id).collect();
            self.forget_links(tx, &ids, state != JobState::Completed, now).await?;
            let ids = json(&ids)?;
            let listed = match tx.dialect() {
                Dialect::Sqlite => "SELECT unhex(replace(value, '-', '')) FROM json_each($1)",
                Dialect::Postgres => "SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)",
            };
            let sql = format!("DELETE FROM runtime_jobs_progress WHERE job_id IN ({listed})");
            on_connection!(tx, conn => {
                sqlx::query(AssertSqlSafe(sql.clone())).bind(&ids).execute(&mut *conn).await?.rows_affected()
            })?;
            // A job completed by its first claim has no attempts written down.
            for (id, _) in gone.iter().filter(|(_, claims)| state != JobState::Completed || *claims > 1) {
                let sql = "DELETE FROM runtime_jobs_attempts WHERE job_id = $1";
                on_connection!(tx, conn => sqlx::query(sql).bind(id).execute(&mut *conn).await?.rows_affected())?;
            }
        }
        for (sql, before) in [
            ("DELETE FROM runtime_jobs_unique WHERE until <= $1", now),
            ("DELETE FROM runtime_jobs_workers WHERE seen < $1", now.saturating_sub(FORGOTTEN)),
        ] {
            on_connection!(tx, conn => sqlx::query(sql).bind(before).execute(&mut *conn).await?.rows_affected())?;
        }
        self.forget_batches(tx, retention, now, max).await?;
        // Claims open those that a pace had closed only where there is a pace: it may have been taken out of use.
        self.open_slots(tx).await?;
        super::slots::forget_slots(tx, now).await?;
        Ok(pruned)
    }

    pub(super) async fn count(&self, tx: &mut Tx, live: Duration) -> Result<Stats, JobsError> {
        let now = self.now(tx).await?;
        let mut depths: BTreeMap<(String, String), Depth> = BTreeMap::new();
        let mut count = |queue: String, kind: String, state: JobState, n: u64, oldest: Option<i64>| {
            let depth = depths.entry((queue.clone(), kind.clone())).or_insert_with(|| Depth {
                queue,
                kind,
                states: BTreeMap::new(),
                oldest: None,
            });
            *depth.states.entry(state.as_str().to_owned()).or_default() += n;
            let oldest = oldest.map(timestamp);
            depth.oldest = depth.oldest.into_iter().chain(oldest).min();
        };
        let sql = format!(
            "SELECT queue, kind, CASE WHEN run_at > {now} THEN 1 ELSE 0 END AS later, count(*) AS n, min(run_at) AS oldest
             FROM (SELECT queue, kind, run_at FROM runtime_jobs_ready UNION ALL
                   SELECT queue, kind, run_at FROM runtime_jobs_later UNION ALL
                   SELECT queue, kind, run_at FROM runtime_jobs_keyed) AS waiting GROUP BY 1, 2, 3 UNION ALL
             SELECT queue, kind, 2, count(*), min(run_at) FROM runtime_jobs_awaiting GROUP BY 1, 2"
        );
        let waiting = on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
            });
            read.collect::<Result<Vec<(String, String, i32, i64, i64)>, sqlx::Error>>()?
        })?;
        let mut kinds = BTreeSet::new();
        for (queue, kind, later, n, oldest) in waiting {
            kinds.insert(kind.clone());
            let state = match later {
                0 => JobState::Available,
                1 => JobState::Scheduled,
                _ => JobState::Waiting,
            };
            count(queue, kind, state, number(n), (later == 0).then_some(oldest));
        }
        for standing in lease::all(tx, None).await? {
            for row in standing.lease.open(&standing.ended) {
                count(row.queue.to_string(), row.kind.to_string(), JobState::Running, 1, None);
            }
        }
        let sql = "SELECT state, count(*) AS n FROM runtime_jobs_finished GROUP BY state";
        let ended = on_connection!(tx, conn => {
            let rows = sqlx::query(sql).fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            read.collect::<Result<Vec<(i32, i64)>, sqlx::Error>>()?
        })?;
        let mut finished = BTreeMap::new();
        for (state, n) in ended {
            finished.insert(state_of(state)?.as_str().to_owned(), number(n));
        }
        let sql = "SELECT kinds FROM runtime_jobs_workers WHERE seen >= $1";
        let since = now.saturating_sub(micros(live));
        let workers: Vec<String> =
            on_connection!(tx, conn => sqlx::query_scalar(sql).bind(since).fetch_all(&mut *conn).await?)?;
        let mut handled = BTreeSet::new();
        for worker in &workers {
            handled.extend(read::<Vec<String>>(worker)?);
        }
        let unhandled = kinds.difference(&handled).cloned().collect();
        Ok(Stats { depths: depths.into_values().collect(), finished, unhandled })
    }
}
