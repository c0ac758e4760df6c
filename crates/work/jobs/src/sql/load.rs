//! How much of a queue waits, at a cost that does not grow with it.

use std::time::Duration;

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};

use super::row::{duration, number};
use super::{SqlStore, clock, on_reader};
use crate::error::JobsError;
use crate::store::Load;

impl SqlStore {
    /// One statement. The lanes of a table are found by stepping from one to the next in its index, and each is counted no
    /// further than asked, so that neither a long queue nor those of others are read. Of those that are due and not fetched
    /// yet, only so many are looked at.
    pub(super) async fn measure(&self, queue: &str, most: u64) -> Result<Load, JobsError> {
        let limit = i64::try_from(most.saturating_add(1)).unwrap_or(i64::MAX);
        let lanes = |name: &str| {
            let table = format!("runtime_jobs_{name}");
            format!(
                "{name}_lanes (lane) AS (
                    SELECT min(lane) FROM {table} UNION ALL
                    SELECT (SELECT min(lane) FROM {table} WHERE lane > l.lane) FROM {name}_lanes l WHERE l.lane IS NOT NULL
                 ), {name}_heads AS (
                    SELECT l.lane AS lane, (SELECT queue FROM {table} j WHERE j.lane = l.lane ORDER BY {order} LIMIT 1) AS queue,
                    (SELECT run_at FROM {table} j WHERE j.lane = l.lane ORDER BY {order} LIMIT 1) AS head
                    FROM {name}_lanes l WHERE l.lane IS NOT NULL
                 )",
                order = if name == "ready" { "j.lane, j.rank, j.id" } else { "j.lane, j.limit_key, j.rank, j.id" }
            )
        };
        let counted = |name: &str| {
            format!(
                "SELECT (SELECT count(*) FROM (SELECT 1 FROM runtime_jobs_{name} j WHERE j.lane = h.lane LIMIT $2) AS c), h.head, {now}
                 FROM {name}_heads h WHERE h.queue = $1",
                now = clock(self.db.dialect(), "$3")
            )
        };
        let sql = format!(
            "WITH RECURSIVE {}, {} {} UNION ALL {} UNION ALL
             SELECT count(*), min(run_at), {now} FROM (
                SELECT queue, run_at FROM runtime_jobs_later WHERE run_at <= {now} ORDER BY run_at, id LIMIT $2
             ) AS due WHERE queue = $1",
            lanes("ready"),
            lanes("keyed"),
            counted("ready"),
            counted("keyed"),
            now = clock(self.db.dialect(), "$3")
        );
        let found: Vec<(i64, Option<i64>, i64)> = on_reader!(self.db, pool => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(queue)
                .bind(limit)
                .bind(self.local_now())
                .fetch_all(pool)
                .await?;
            let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
            read.collect::<Result<_, sqlx::Error>>()?
        });
        let depth: i64 = found.iter().map(|(count, _, _)| *count).sum();
        let age = found.iter().filter_map(|(_, head, now)| Some(now - (*head)?)).max();
        Ok(Load {
            depth: number(depth.min(limit)),
            age: age.filter(|age| *age > 0).map_or(Duration::ZERO, duration),
        })
    }
}
