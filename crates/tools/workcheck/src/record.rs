//! Reads what the database keeps when all is over.

use std::collections::BTreeMap;

use runtime_db::sqlx::{self, AssertSqlSafe, PgPool, Row as _};
use serde_json::Value;

use crate::check::{Attempt, Ending, Kept};
use crate::error::WorkcheckError;
use crate::load::Task;

/// What is zero when nothing is left over: its name and how to count it.
const LEFT: [(&str, &str); 6] = [
    ("leases", "SELECT count(*) FROM runtime_jobs_leases"),
    ("waiting", "SELECT count(*) FROM runtime_jobs_ready"),
    ("parked", "SELECT count(*) FROM runtime_jobs_keyed"),
    ("cancels", "SELECT count(*) FROM runtime_jobs_cancels"),
    (
        "slots in use",
        "SELECT count(*) FROM runtime_jobs_slots WHERE running <> 0 OR promoted <> 0 OR parked <> 0",
    ),
    ("unique keys", "SELECT count(*) FROM runtime_jobs_unique WHERE until IS NULL"),
];

/// How many jobs have not ended.
pub(crate) async fn unfinished(pool: &PgPool) -> Result<i64, WorkcheckError> {
    let sql = "SELECT (SELECT count(*) FROM runtime_jobs_ready) + (SELECT count(*) FROM runtime_jobs_later)
        + (SELECT count(*) FROM runtime_jobs_keyed) + (SELECT count(*) FROM runtime_jobs_leases)";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

pub(crate) async fn ending(pool: &PgPool) -> Result<Ending, WorkcheckError> {
    let mut ending = Ending::default();
    for (name, sql) in LEFT {
        ending.left.insert(name.to_owned(), sqlx::query_scalar(sql).fetch_one(pool).await?);
    }
    let (mut attempts, mut errors) = (BTreeMap::<String, Vec<Attempt>>::new(), BTreeMap::new());
    let sql = "SELECT job_id::text, number::bigint, started_at, finished_at, error FROM runtime_jobs_attempts
        ORDER BY number";
    for row in sqlx::query(sql).fetch_all(pool).await? {
        let attempt = Attempt { number: row.try_get(1)?, began: row.try_get(2)?, ended: row.try_get(3)? };
        attempts.entry(row.try_get(0)?).or_default().push(attempt);
        errors.insert(row.try_get::<String, _>(0)?, row.try_get::<Option<String>, _>(4)?.unwrap_or_default());
    }
    let sql = "SELECT id::text, kind, limit_key, unique_key, payload, created_at, attempt::bigint,
        max_attempts::bigint, claims::bigint, state, started_at, finished_at, result FROM runtime_jobs_finished";
    for row in sqlx::query(sql).fetch_all(pool).await? {
        let mut kept = kept(&row)?;
        let id: String = row.try_get(0)?;
        kept.attempts = attempts.remove(&id).unwrap_or_default();
        kept.error = errors.remove(&id).unwrap_or_default();
        let state: i32 = row.try_get(9)?;
        let name = ["completed", "dead", "cancelled"].get(usize::try_from(state).unwrap_or(3));
        kept.state = Some((*name.unwrap_or(&"unknown")).to_owned());
        kept.finished = row.try_get(11)?;
        if state == 0
            && let Some(began) = row.try_get(10)?
        {
            kept.attempts.push(Attempt { number: row.try_get(8)?, began, ended: kept.finished });
        }
        let result: Option<String> = row.try_get(12)?;
        let result: Option<Value> = result.as_deref().map(serde_json::from_str).transpose()?;
        kept.result_fence = result.and_then(|result| result.get("fence")?.as_u64());
        ending.jobs.push(kept);
    }
    for table in ["ready", "later", "keyed"] {
        let sql = format!(
            "SELECT id::text, kind, limit_key, unique_key, payload, created_at, attempt::bigint, max_attempts::bigint
             FROM runtime_jobs_{table}"
        );
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await? {
            ending.jobs.push(kept(&row)?);
        }
    }
    let sql = "SELECT body, ended FROM runtime_jobs_leases";
    for row in sqlx::query(sql).fetch_all(pool).await? {
        let rows: Vec<Value> = serde_json::from_str(&row.try_get::<String, _>(0)?)?;
        let ended: Vec<u8> = row.try_get(1)?;
        for (place, row) in rows.iter().enumerate() {
            if ended.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0) {
                continue;
            }
            let payload = row.get("payload").and_then(Value::as_str).unwrap_or_default();
            let kind = row.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            ending.jobs.push(Kept {
                job: serde_json::from_str::<Task>(payload)?.job,
                kind,
                ..Kept::default()
            });
        }
    }
    Ok(ending)
}

fn kept(row: &sqlx::postgres::PgRow) -> Result<Kept, WorkcheckError> {
    let task: Task = serde_json::from_str(&row.try_get::<String, _>(4)?)?;
    Ok(Kept {
        job: task.job,
        kind: row.try_get(1)?,
        key: row.try_get(2)?,
        unique: row.try_get(3)?,
        scheduled: task.scheduled,
        created: row.try_get(5)?,
        attempts_used: (row.try_get(6)?, row.try_get(7)?),
        ..Kept::default()
    })
}
