//! The claim: fetches what has become due, takes the first by rank, writes one lease. One transaction.

use std::sync::Arc;

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};

use super::low::highest;
use super::row::{COLUMNS, Row, Words, duration, lane, micros, waiting_of};
use super::write::give_up_begun;
use super::{SqlStore, clock, locking, on_reader};
use crate::error::JobsError;
use crate::store::{ClaimRequest, Claimed, Probe};

/// The most jobs moved from `later` to `ready` by one claim.
const DUE: u32 = 2000;

/// The one lane of what waits for its time.
pub(super) const ALL: i64 = 0;

/// Makes the rest of the transaction use the index: what the planner believes about a table that fills and empties all
/// day is seldom true. Said within another statement, for it to cost no round trip.
const INDEX_ONLY: &str = "index_only AS MATERIALIZED (SELECT set_config('enable_seqscan', 'off', true), \
     set_config('enable_bitmapscan', 'off', true))";

impl SqlStore {
    pub(super) async fn claim_due(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        let began = self.db.clock().now();
        let claim = async |mut tx: Tx| {
            let tx = &mut tx;
            self.fetch_due(tx).await?;
            if request.is_paced() {
                self.open_slots(tx).await?;
            }
            let mut rows = Vec::new();
            // What a limit holds back makes room for more.
            loop {
                let room = request.max.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
                let taken = self.take_ready(tx, request, room).await?;
                if taken.is_empty() {
                    break;
                }
                let (admitted, again) = self.admit(tx, request, taken).await?;
                rows.extend(admitted);
                if !again {
                    break;
                }
            }
            if rows.is_empty() {
                return Ok(None);
            }
            rows.sort_unstable_by_key(|row| (row.rank, row.id));
            for row in &mut rows {
                row.attempt = row.attempt.saturating_add(1);
                row.claims = row.claims.saturating_add(1);
            }
            give_up_begun(tx, &rows).await?;
            self.write_lease(tx, request, rows).await.map(Some)
        };
        let Some(lease) = self.db.transaction(&self.context(), claim).await? else { return Ok(Vec::new()) };
        // What was committed after this claim had looked, and before it was over, is not below the mark.
        let took = micros(self.db.clock().now().saturating_duration_since(began));
        self.low.taken(highest(&lease.rows), lease.claimed_at.saturating_sub(took));
        let claimed = lease.rows.iter().map(|row| row.claimed(lease.id)).collect();
        self.keep(lease);
        Ok(claimed)
    }

    /// Moves jobs whose time has come from `later` to `ready`.
    async fn fetch_due(&self, tx: &mut Tx) -> Result<(), JobsError> {
        let dialect = tx.dialect();
        let now = clock(dialect, "$1");
        let due = format!(
            "SELECT id FROM runtime_jobs_later WHERE run_at <= {now} AND run_at >= $2 ORDER BY run_at, id LIMIT {DUE} {}",
            locking(dialect)
        );
        if dialect == Dialect::Sqlite {
            let moved = format!(
                "INSERT INTO runtime_jobs_ready ({COLUMNS}) SELECT {COLUMNS} FROM runtime_jobs_later WHERE id IN ({due})"
            );
            let gone = format!("DELETE FROM runtime_jobs_later WHERE id IN ({due})");
            for sql in [moved, gone] {
                let changed = on_connection!(tx, conn => {
                    sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now()).bind(i64::MIN).execute(&mut *conn).await?.rows_affected()
                })?;
                if changed == 0 {
                    break;
                }
            }
            return Ok(());
        }
        let began = self.db.clock().now();
        let marks = self.due.marks(&[ALL], began);
        let low = marks.as_ref().and_then(|marks| marks.first().copied()).unwrap_or(i64::MIN);
        let sql = format!(
            "WITH due AS (DELETE FROM runtime_jobs_later WHERE id = ANY(ARRAY({due})) RETURNING {COLUMNS}),
             moved AS (INSERT INTO runtime_jobs_ready ({COLUMNS}) SELECT {COLUMNS} FROM due RETURNING lane, rank, run_at),
             {INDEX_ONLY}
             SELECT moved.lane, min(moved.rank), max(moved.run_at) FROM index_only LEFT JOIN moved ON true GROUP BY 1"
        );
        let moved = on_connection!(tx, conn => {
            let query = sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now()).bind(low);
            let rows = query.fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
            read.collect::<Result<Vec<(Option<i64>, Option<i64>, Option<i64>)>, sqlx::Error>>()?
        })?;
        for (lane, rank, _) in &moved {
            if let (Some(lane), Some(rank)) = (lane, rank) {
                self.low.arrived(*lane, *rank);
            }
        }
        let latest = moved.iter().filter_map(|(.., run_at)| *run_at).max();
        let now = self.db.clock().now();
        let (due, took) = (Arc::clone(&self.due), now.saturating_duration_since(began));
        tx.on_commit(move || {
            if let Some(latest) = latest {
                due.taken([(ALL, latest)], latest);
            }
            if marks.is_none() {
                due.looked_whole(&[ALL], now, took);
            }
        });
        Ok(())
    }

    async fn take_ready(&self, tx: &mut Tx, request: &ClaimRequest, max: u32) -> Result<Vec<Row>, JobsError> {
        let lanes = Lanes::of(request);
        if max == 0 {
            return Ok(Vec::new());
        }
        match tx.dialect() {
            Dialect::Sqlite => take_sqlite(tx, &lanes, max).await,
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let began = self.db.clock().now();
                let marks = self.low.marks(&lanes.numbers, began);
                let lows = marks.clone().unwrap_or_else(|| vec![i64::MIN; lanes.numbers.len()]);
                let rows = take_postgres(tx, &lanes, &lows, max).await?;
                if marks.is_none() {
                    let now = self.db.clock().now();
                    let (low, took) = (Arc::clone(&self.low), now.saturating_duration_since(began));
                    // A claim that is undone puts back what it has seen.
                    tx.on_commit(move || low.looked_whole(&lanes.numbers, now, took));
                }
                Ok(rows)
            }
            #[cfg(not(feature = "postgres"))]
            Dialect::Postgres => {
                Err(runtime_db::DbError::Unsupported("jobs without the feature `postgres`").into())
            }
        }
    }

    /// One statement, so that an idle worker costs next to nothing.
    pub(super) async fn look(&self, request: &ClaimRequest) -> Result<Probe, JobsError> {
        let lanes = Lanes::of(request);
        let began = self.db.clock().now();
        let (marks, due) = (self.low.marks(&lanes.numbers, began), self.due.marks(&[ALL], began));
        let lows = marks.clone().unwrap_or_else(|| vec![i64::MIN; lanes.numbers.len()]);
        let now = clock(self.db.dialect(), "$1");
        // Ordered, for it to begin at the mark of the index, whatever the planner thinks of the table.
        let ready = lanes.each(|place, lane| {
            let (queue, kind, low) =
                (format!("${}", place + 3), format!("${}", place + 4), format!("${}", place + 5));
            let unpaused = unpaused(&queue, &kind);
            format!(
                "((SELECT 1 FROM runtime_jobs_ready WHERE lane = {lane} AND rank >= {low} AND queue = {queue} \
                 AND kind = {kind} ORDER BY lane, rank, id LIMIT 1) IS NOT NULL AND {unpaused})"
            )
        });
        let later =
            "SELECT run_at AS at FROM runtime_jobs_later WHERE run_at >= $2 ORDER BY run_at, id LIMIT 1";
        let next = if request.is_paced() {
            format!(
                "(SELECT min(at) FROM (SELECT * FROM ({later}) AS first UNION ALL
                  SELECT min(open_at) FROM runtime_jobs_slots) AS times)"
            )
        } else {
            format!("({later})")
        };
        let sql = format!(
            "SELECT CASE WHEN {ready} THEN 1 ELSE 0 END, {next} - now FROM (SELECT {now} AS now) AS t"
        );
        let from = due.as_ref().and_then(|due| due.first().copied()).unwrap_or(i64::MIN);
        let (ready, wait) = on_reader!(self.db, pool => {
            let mut query = sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now()).bind(from);
            for ((queue, kind), low) in lanes.queues.iter().zip(&lanes.kinds).zip(&lows) {
                query = query.bind(queue).bind(kind).bind(low);
            }
            let row = query.fetch_one(pool).await?;
            (row.try_get::<i32, _>(0)?, row.try_get::<Option<i64>, _>(1)?)
        });
        let ready = ready != 0 || wait.is_some_and(|wait| wait <= 0);
        if !ready {
            // Had there been something, the claim must look where this did.
            let now = self.db.clock().now();
            let took = now.saturating_duration_since(began);
            if marks.is_none() {
                self.low.looked_whole(&lanes.numbers, now, took);
            }
            if due.is_none() {
                self.due.looked_whole(&[ALL], now, took);
            }
        }
        Ok(Probe { due: ready, next: wait.filter(|wait| *wait > 0).map(duration) })
    }
}

/// The stretches of the index a worker claims from.
struct Lanes {
    numbers: Vec<i64>,
    queues: Vec<String>,
    kinds: Vec<String>,
}

impl Lanes {
    fn of(request: &ClaimRequest) -> Self {
        let mut lanes = Self { numbers: Vec::new(), queues: Vec::new(), kinds: Vec::new() };
        for queue in &request.queues {
            for kind in &request.kinds {
                lanes.numbers.push(lane(queue, kind));
                lanes.queues.push(queue.clone());
                lanes.kinds.push(kind.clone());
            }
        }
        lanes
    }

    /// A condition for each; `place` counts the parameters of those before, three each.
    fn each(&self, condition: impl Fn(usize, i64) -> String) -> String {
        if self.numbers.is_empty() {
            return "0 = 1".to_owned();
        }
        self.numbers
            .iter()
            .enumerate()
            .map(|(n, lane)| condition(3 * n, *lane))
            .collect::<Vec<_>>()
            .join(" OR ")
    }
}

fn unpaused(queue: &str, kind: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM runtime_jobs_pauses p WHERE p.queue = {queue} AND p.kind IN ('', {kind}))"
    )
}

async fn take_sqlite(tx: &mut Tx, lanes: &Lanes, max: u32) -> Result<Vec<Row>, JobsError> {
    if lanes.numbers.is_empty() {
        return Ok(Vec::new());
    }
    let pairs = lanes.numbers.iter().enumerate();
    let first = pairs.map(|(n, lane)| {
        let (queue, kind) = (2 * n + 1, 2 * n + 2);
        format!(
            "SELECT * FROM (SELECT id, rank FROM runtime_jobs_ready WHERE lane = {lane} AND queue = ${queue} \
             AND kind = ${kind} AND {} ORDER BY rank, id LIMIT {max})",
            unpaused(&format!("${queue}"), &format!("${kind}"))
        )
    });
    let first = first.collect::<Vec<_>>().join(" UNION ALL ");
    let sql = format!(
        "DELETE FROM runtime_jobs_ready WHERE id IN (SELECT id FROM ({first}) ORDER BY rank, id LIMIT {max}) \
         RETURNING {COLUMNS}"
    );
    on_connection!(tx, conn => {
        let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
        for (queue, kind) in lanes.queues.iter().zip(&lanes.kinds) {
            query = query.bind(queue).bind(kind);
        }
        let rows = query.fetch_all(&mut *conn).await?;
        let mut words = Words::default();
        rows.iter().map(|row| waiting_of(row, &mut words)).collect()
    })?
}

#[cfg(feature = "postgres")]
async fn take_postgres(tx: &mut Tx, lanes: &Lanes, lows: &[i64], max: u32) -> Result<Vec<Row>, JobsError> {
    const SQL: &str = "WITH lanes AS (
            SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS l (lane, queue, kind, low)
            WHERE NOT EXISTS (
                SELECT 1 FROM runtime_jobs_pauses p WHERE p.queue = l.queue AND p.kind IN ('', l.kind)
            )
        ), first AS (
            SELECT r.ctid, r.rank, r.id FROM lanes l CROSS JOIN LATERAL (
                SELECT j.ctid, j.rank, j.id FROM runtime_jobs_ready j
                WHERE j.lane = l.lane AND j.rank >= l.low AND j.queue = l.queue AND j.kind = l.kind
                ORDER BY j.lane, j.rank, j.id LIMIT $5 FOR UPDATE SKIP LOCKED
            ) r ORDER BY r.rank, r.id LIMIT $6
        )
        DELETE FROM runtime_jobs_ready WHERE ctid = ANY(ARRAY(SELECT ctid FROM first))
        RETURNING id, lane, rank, run_at, created_at, priority, attempt, max_attempts, allowance, claims, timeout,
        queue, kind, tenant, unique_key, limit_key, context, payload, turn";
    let Some(conn) = tx.postgres() else { return Ok(Vec::new()) };
    let count = i64::try_from(lanes.numbers.len()).unwrap_or(i64::MAX);
    let max = i64::from(max);
    // With many lanes, each gives a share above its due: what a claim leaves behind the next one takes.
    let each = if count <= 4 { max } else { max.min((4 * max / count).max(32)) };
    let rows = sqlx::query(SQL)
        .bind(&lanes.numbers)
        .bind(&lanes.queues)
        .bind(&lanes.kinds)
        .bind(lows)
        .bind(each)
        .bind(max)
        .fetch_all(&mut *conn)
        .await?;
    let mut words = Words::default();
    rows.iter().map(|row| waiting_of(row, &mut words)).collect()
}
