//! Rows as jobs, and values as they rest in columns.

use std::time::Duration;

use runtime_db::sqlx::{self, AssertSqlSafe, Row};
use runtime_db::{Dialect, Tx};
use runtime_kernel::Timestamp;
use serde::de::DeserializeOwned;

use super::run::{UNREACHABLE, rows};
use crate::error::JobsError;
use crate::job::{Attempt, AttemptOutcome, Job, JobId, JobState};

pub(super) const SELECT: &str =
    "SELECT d.id, d.kind, d.queue, d.priority, d.payload, d.context, d.timeout, d.created_at,
    j.running, COALESCE(j.run_at, f.run_at) AS run_at, COALESCE(j.attempt, f.attempt) AS attempt,
    COALESCE(j.max_attempts, f.max_attempts) AS max_attempts, j.cancel, f.state, f.finished_at, f.result
    FROM job_details d LEFT JOIN jobs j ON j.id = d.id LEFT JOIN jobs_finished f ON f.id = d.id";

pub(super) fn state_condition(state: Option<JobState>, now: i64) -> String {
    match state {
        None => "1 = 1".to_owned(),
        Some(JobState::Scheduled) => format!("j.running = 0 AND j.run_at > {now}"),
        Some(JobState::Available) => format!("j.running = 0 AND j.run_at <= {now}"),
        Some(JobState::Running) => "j.running = 1".to_owned(),
        Some(finished) => format!("f.state = '{}'", finished.as_str()),
    }
}

pub(super) async fn load(
    tx: &mut Tx,
    now: i64,
    id: JobId,
    tenant: Option<&str>,
    lock: bool,
) -> Result<Option<Job>, JobsError> {
    let key = id.to_string();
    if lock && tx.dialect() == Dialect::Postgres {
        rows!(tx, "SELECT id FROM jobs WHERE id = $1 FOR UPDATE", [&key], |row| row
            .try_get::<String, _>("id")?);
    }
    let sql = format!("{SELECT} WHERE d.id = $1 AND ($2 IS NULL OR d.tenant = $2)");
    let mut jobs = rows!(tx, sql, [&key, tenant], |row| job_of(row, now)?);
    let Some(mut job) = jobs.pop() else { return Ok(None) };
    let sql =
        "SELECT number, worker, started_at, finished_at, outcome, error FROM job_attempts WHERE job_id = $1
        ORDER BY number";
    job.attempts = rows!(tx, sql, [&key], |row| Attempt {
        number: number(row.try_get::<i64, _>("number")?),
        worker: row.try_get("worker")?,
        started_at: timestamp(row.try_get("started_at")?),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(timestamp),
        outcome: row.try_get::<Option<String>, _>("outcome")?.as_deref().and_then(AttemptOutcome::parse),
        error: row.try_get::<Option<String>, _>("error")?.as_deref().map(read).transpose()?,
    });
    Ok(Some(job))
}

pub(super) fn job_of<'r, R>(row: &'r R, now: i64) -> Result<Job, JobsError>
where
    R: Row,
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<i64>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let run_at: i64 = row.try_get("run_at")?;
    let finished: Option<String> = row.try_get("state")?;
    let running: Option<i64> = row.try_get("running")?;
    let state = match (finished, running) {
        (Some(state), None) => {
            JobState::parse(&state).ok_or_else(|| JobsError::Corrupt(format!("unknown state `{state}`")))?
        }
        (_, Some(1)) => JobState::Running,
        (_, Some(_)) if run_at > now => JobState::Scheduled,
        (_, Some(_)) => JobState::Available,
        (None, None) => return Err(JobsError::Corrupt("a job without a state".to_owned())),
    };
    Ok(Job {
        id: job_id(&row.try_get::<String, _>("id")?)?,
        kind: row.try_get("kind")?,
        queue: row.try_get("queue")?,
        state,
        priority: i16::try_from(row.try_get::<i64, _>("priority")?).unwrap_or_default(),
        payload: read(&row.try_get::<String, _>("payload")?)?,
        context: read(&row.try_get::<String, _>("context")?)?,
        attempt: number(row.try_get::<i64, _>("attempt")?),
        max_attempts: number(row.try_get::<i64, _>("max_attempts")?),
        timeout: row.try_get::<Option<i64>, _>("timeout")?.map(duration),
        created_at: timestamp(row.try_get("created_at")?),
        run_at: timestamp(run_at),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(timestamp),
        result: row.try_get::<Option<String>, _>("result")?.as_deref().map(read).transpose()?,
        cancel_requested: row.try_get::<Option<i64>, _>("cancel")? == Some(1),
        attempts: Vec::new(),
    })
}

/// The rows of a list given as one JSON parameter.
pub(super) fn among(dialect: Dialect, parameter: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("(SELECT value FROM json_each({parameter}))"),
        Dialect::Postgres => format!("(SELECT jsonb_array_elements_text(({parameter})::text::jsonb))"),
    }
}

pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, JobsError> {
    serde_json::to_string(value).map_err(|error| JobsError::Invalid(error.to_string()))
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, JobsError> {
    serde_json::from_str(text).map_err(|error| JobsError::Corrupt(error.to_string()))
}

pub(super) fn job_id(text: &str) -> Result<JobId, JobsError> {
    text.parse().map_err(|_| JobsError::Corrupt(format!("`{text}` is not a job id")))
}

pub(super) fn number<N: TryFrom<i64> + Default>(value: i64) -> N {
    N::try_from(value).unwrap_or_default()
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}

pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(number(micros))
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
