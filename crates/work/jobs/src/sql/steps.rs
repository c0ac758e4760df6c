//! What a job goes through, step by step, inside a transaction.

use runtime_db::sqlx::{self, AssertSqlSafe, Row};
use runtime_db::{Dialect, Tx};
use runtime_kernel::Timestamp;

use super::rows::{job_id, json, micros};
use super::run::{UNREACHABLE, change, rows};
use crate::error::JobsError;
use crate::job::{AttemptOutcome, Enqueued, Failure, JobId, JobState};
use crate::store::{Insert, Receipt, Report, Verdict, namespace};

pub(super) async fn insert_one(tx: &mut Tx, now: i64, insert: &Insert) -> Result<Enqueued, JobsError> {
    let Insert { id, job, context } = insert;
    // Before the key is touched: the job may have finished and given it up, and must not take it again.
    let known = rows!(tx, "SELECT id FROM job_details WHERE id = $1", [id.to_string()], |row| row
        .try_get::<String, _>("id")?);
    if !known.is_empty() {
        return Ok(Enqueued { id: *id, duplicate: false });
    }
    let tenant = namespace(context);
    let unique = job.unique_key.as_ref().map(|key| format!("{tenant}\n{}\n{key}", job.kind));
    if let Some(key) = &unique {
        change!(tx, "DELETE FROM job_unique WHERE unique_key = $1 AND until <= $2", key, now);
        let until = job.unique_for.map(|period| now.saturating_add(micros(period)));
        if let Some(holder) = take_key(tx, key, *id, until).await?
            && holder != *id
        {
            return Ok(Enqueued { id: holder, duplicate: true });
        }
    }
    let sql = "INSERT INTO job_details
        (id, tenant, kind, queue, priority, payload, context, allowance, timeout, unique_key, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
    let added = change!(
        tx,
        sql,
        id.to_string(),
        &tenant,
        &job.kind,
        &job.queue,
        i64::from(job.priority),
        job.payload.to_string(),
        json(context)?,
        i64::from(job.max_attempts),
        job.timeout.map(micros),
        unique.as_ref(),
        now,
    );
    if added == 1 {
        let sql = "INSERT INTO jobs
            (id, queue, kind, priority, running, run_at, attempt, max_attempts, fence, cancel)
            VALUES ($1, $2, $3, $4, 0, $5, 0, $6, 0, 0)";
        let run_at = job.run_at.map_or(now, Timestamp::as_microsecond);
        let (priority, allowance) = (i64::from(job.priority), i64::from(job.max_attempts));
        change!(tx, sql, id.to_string(), &job.queue, &job.kind, priority, run_at, allowance);
    }
    Ok(Enqueued { id: *id, duplicate: false })
}

/// Takes a unique key, or says who has it.
pub(super) async fn take_key(
    tx: &mut Tx,
    key: &str,
    id: JobId,
    until: Option<i64>,
) -> Result<Option<JobId>, JobsError> {
    // Again when the holder gives it up between the two statements.
    for _ in 0..10 {
        let sql =
            "INSERT INTO job_unique (unique_key, job_id, until) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        if change!(tx, sql, key, id.to_string(), until) == 1 {
            return Ok(None);
        }
        let sql = "SELECT job_id FROM job_unique WHERE unique_key = $1";
        let holder = rows!(tx, sql, [key], |row| job_id(&row.try_get::<String, _>("job_id")?)?);
        if let Some(holder) = holder.first() {
            return Ok(Some(*holder));
        }
    }
    Err(JobsError::Corrupt("a unique key changes hands without end".to_owned()))
}

pub(super) async fn take_report(tx: &mut Tx, now: i64, report: &Report) -> Result<Receipt, JobsError> {
    let (id, fence) = (report.id.to_string(), i64::try_from(report.fence).unwrap_or(i64::MAX));
    // Taking the row's lock decides the race with a rescue.
    let sql = "UPDATE jobs SET running = 1 WHERE id = $1 AND fence = $2 AND running = 1 AND lease_until >= $3
        RETURNING cancel";
    let held = rows!(tx, sql, [&id, fence, now], |row| row.try_get::<i64, _>("cancel")? == 1);
    let Some(cancel) = held.first().copied() else { return Ok(Receipt::Stale) };
    let (outcome, failure) = match &report.verdict {
        Verdict::Completed(_) => (AttemptOutcome::Completed, None),
        Verdict::Dead(failure) | Verdict::Retry(_, failure) => (AttemptOutcome::Failed, Some(failure)),
        Verdict::Cancelled => (AttemptOutcome::Cancelled, None),
        Verdict::Released(_) => (AttemptOutcome::Released, None),
    };
    end_attempt(tx, now, &id, fence, outcome, failure).await?;
    match &report.verdict {
        Verdict::Completed(result) => {
            finish(tx, now, &id, JobState::Completed, Some(result.to_string())).await?;
        }
        Verdict::Dead(_) => finish(tx, now, &id, JobState::Dead, None).await?,
        Verdict::Cancelled => finish(tx, now, &id, JobState::Cancelled, None).await?,
        Verdict::Retry(..) | Verdict::Released(_) if cancel => {
            finish(tx, now, &id, JobState::Cancelled, None).await?;
        }
        Verdict::Retry(delay, _) => wait(tx, &id, now.saturating_add(micros(*delay)), 0).await?,
        Verdict::Released(delay) => wait(tx, &id, now.saturating_add(micros(*delay)), 1).await?,
    }
    Ok(Receipt::Accepted)
}

pub(super) async fn end_attempt(
    tx: &mut Tx,
    now: i64,
    id: &str,
    fence: i64,
    outcome: AttemptOutcome,
    failure: Option<&Failure>,
) -> Result<(), JobsError> {
    let sql = "UPDATE job_attempts SET finished_at = $3, outcome = $4, error = $5 WHERE job_id = $1 AND number = $2";
    let error = failure.map(json).transpose()?;
    change!(tx, sql, id, fence, now, outcome.as_str(), error);
    Ok(())
}

/// Back into the queue; `refund` attempts are not counted.
pub(super) async fn wait(tx: &mut Tx, id: &str, at: i64, refund: i64) -> Result<(), JobsError> {
    let sql =
        "UPDATE jobs SET running = 0, worker = NULL, lease_until = NULL, run_at = $2, attempt = attempt - $3
        WHERE id = $1";
    change!(tx, sql, id, at, refund);
    Ok(())
}

pub(super) async fn finish(
    tx: &mut Tx,
    now: i64,
    id: &str,
    state: JobState,
    result: Option<String>,
) -> Result<(), JobsError> {
    let sql =
        "INSERT INTO jobs_finished (id, state, attempt, max_attempts, fence, run_at, finished_at, result)
        SELECT id, $2, attempt, max_attempts, fence, run_at, $3, $4 FROM jobs WHERE id = $1";
    change!(tx, sql, id, state.as_str(), now, result);
    change!(tx, "DELETE FROM jobs WHERE id = $1", id);
    // A key taken for a period outlives its job.
    change!(
        tx,
        "DELETE FROM job_unique WHERE until IS NULL AND job_id = $1 AND unique_key =
        (SELECT unique_key FROM job_details WHERE id = $1)",
        id
    );
    Ok(())
}
