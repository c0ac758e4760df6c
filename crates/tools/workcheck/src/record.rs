//! Reads what the database keeps when all is over.

use std::collections::BTreeMap;

use runtime_db::sqlx::{self, AssertSqlSafe, PgPool, Row as _};
use runtime_jobs::store::{Filter, JobStore as _};
use runtime_jobs::{JobState, SqlStore};
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

pub(crate) async fn ending(pool: &PgPool, store: &SqlStore) -> Result<Ending, WorkcheckError> {
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
    // How a lease is written is the store's own business.
    let running = Filter { state: Some(JobState::Running), limit: u32::MAX, ..Filter::default() };
    for job in store.list(&running).await? {
        let task: Task = serde_json::from_value(job.payload)?;
        ending.jobs.push(Kept { job: task.job, kind: job.kind, ..Kept::default() });
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime_jobs::store::ClaimRequest;
    use runtime_jobs::{Jobs, NewJob, migrations};
    use runtime_kernel::{Context, Source, SystemClock};
    use runtime_migrate::{MigrateOptions, Migrator};
    use runtime_testkit::postgres::Server;
    use serde_json::json;

    use super::*;
    use crate::load::{PLAIN, config, open};

    #[tokio::test]
    async fn a_job_that_still_runs_at_the_end_is_there() {
        let server = Server::start().await.unwrap();
        let url = server.create_database("ending").await.unwrap();
        let db = open(&url, 2, SystemClock::shared()).await.unwrap();
        let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
        migrator.run().await.unwrap();
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), config(), SystemClock::shared());
        let context = Context::new(Source::Internal, &SystemClock);
        for job in [7, 8] {
            let task = json!({ "job": job, "millis": 0, "fails": 0 });
            jobs.enqueue(&context, NewJob::new(PLAIN, task)).await.unwrap();
        }
        let request = ClaimRequest {
            worker: "w".to_owned(),
            queues: vec!["default".to_owned()],
            kinds: vec![PLAIN.to_owned()],
            max: 1,
            lease: Duration::from_mins(1),
            limits: BTreeMap::new(),
        };
        assert_eq!(store.claim(&request).await.unwrap().len(), 1);
        let ending = ending(db.postgres().unwrap(), &store).await.unwrap();
        let mut numbers: Vec<u64> = ending.jobs.iter().map(|kept| kept.job).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [7, 8]);
        assert_eq!(ending.left["leases"], 1);
    }
}
