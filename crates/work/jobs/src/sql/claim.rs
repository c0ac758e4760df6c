//! The claim: fetches what has become due, takes the first by rank, writes one lease. One transaction.

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Dialect, Tx, on_connection};

use super::row::{COLUMNS, Row, duration, lane, waiting_of};
use super::{SqlStore, clock, locking, on_reader};
use crate::error::JobsError;
use crate::store::{ClaimRequest, Claimed, Probe};

/// The most jobs moved from `later` to `ready` by one claim.
const DUE: u32 = 2000;

/// Makes the rest of the transaction use the index: what the planner believes about a table that fills and empties all
/// day is seldom true. Said within another statement, for it to cost no round trip.
const INDEX_ONLY: &str = "index_only AS MATERIALIZED (SELECT set_config('enable_seqscan', 'off', true), \
     set_config('enable_bitmapscan', 'off', true))";

impl SqlStore {
    pub(super) async fn claim_due(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
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
            self.write_lease(tx, request, rows).await.map(Some)
        };
        let Some(lease) = self.db.transaction(&self.context(), claim).await? else { return Ok(Vec::new()) };
        self.low.taken(&lease.rows, lease.claimed_at);
        let claimed = lease.rows.iter().map(|row| row.claimed(lease.id)).collect();
        self.keep(lease);
        Ok(claimed)
    }

    /// Moves jobs whose time has come from `later` to `ready`.
    async fn fetch_due(&self, tx: &mut Tx) -> Result<(), JobsError> {
        let dialect = tx.dialect();
        let now = clock(dialect, "$1");
        let due = format!(
            "SELECT id FROM runtime_jobs_later WHERE run_at <= {now} ORDER BY run_at, id LIMIT {DUE} {}",
            locking(dialect)
        );
        if dialect == Dialect::Sqlite {
            let moved = format!(
                "INSERT INTO runtime_jobs_ready ({COLUMNS}) SELECT {COLUMNS} FROM runtime_jobs_later WHERE id IN ({due})"
            );
            let gone = format!("DELETE FROM runtime_jobs_later WHERE id IN ({due})");
            for sql in [moved, gone] {
                let changed = on_connection!(tx, conn => {
                    sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now()).execute(&mut *conn).await?.rows_affected()
                })?;
                if changed == 0 {
                    break;
                }
            }
            return Ok(());
        }
        let sql = format!(
            "WITH due AS (DELETE FROM runtime_jobs_later WHERE id = ANY(ARRAY({due})) RETURNING {COLUMNS}),
             moved AS (INSERT INTO runtime_jobs_ready ({COLUMNS}) SELECT {COLUMNS} FROM due RETURNING lane, rank),
             {INDEX_ONLY}
             SELECT moved.lane, min(moved.rank) FROM index_only LEFT JOIN moved ON true GROUP BY 1"
        );
        let arrived = on_connection!(tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now()).fetch_all(&mut *conn).await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            read.collect::<Result<Vec<(Option<i64>, Option<i64>)>, sqlx::Error>>()?
        })?;
        for (lane, rank) in arrived {
            if let (Some(lane), Some(rank)) = (lane, rank) {
                self.low.arrived(lane, rank);
            }
        }
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
                    self.low.looked_whole(now, now.saturating_duration_since(began));
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
        let now = clock(self.db.dialect(), "$1");
        let ready = lanes.each(|place, lane| {
            let (queue, kind) = (format!("${}", place + 2), format!("${}", place + 3));
            let unpaused = unpaused(&queue, &kind);
            format!("(EXISTS (SELECT 1 FROM runtime_jobs_ready WHERE lane = {lane} AND queue = {queue} AND kind = {kind}) AND {unpaused})")
        });
        let next = if request.is_paced() {
            "(SELECT min(at) FROM (SELECT min(run_at) AS at FROM runtime_jobs_later UNION ALL
              SELECT min(open_at) FROM runtime_jobs_slots) AS times)"
        } else {
            "(SELECT min(run_at) FROM runtime_jobs_later)"
        };
        let sql = format!(
            "SELECT CASE WHEN {ready} THEN 1 ELSE 0 END, {next} - now FROM (SELECT {now} AS now) AS t"
        );
        let (ready, wait) = on_reader!(self.db, pool => {
            let mut query = sqlx::query(AssertSqlSafe(sql.clone())).bind(self.local_now());
            for (queue, kind) in lanes.queues.iter().zip(&lanes.kinds) {
                query = query.bind(queue).bind(kind);
            }
            let row = query.fetch_one(pool).await?;
            (row.try_get::<i32, _>(0)?, row.try_get::<Option<i64>, _>(1)?)
        });
        let due = ready != 0 || wait.is_some_and(|wait| wait <= 0);
        Ok(Probe { due, next: wait.filter(|wait| *wait > 0).map(duration) })
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

    /// A condition for each; `place` counts the parameters of those before, two each.
    fn each(&self, condition: impl Fn(usize, i64) -> String) -> String {
        if self.numbers.is_empty() {
            return "0 = 1".to_owned();
        }
        self.numbers
            .iter()
            .enumerate()
            .map(|(n, lane)| condition(2 * n, *lane))
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
        rows.iter().map(waiting_of).collect()
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
    rows.iter().map(waiting_of).collect()
}
