//! The claim: finds what is due, marks it taken and reads it, in one transaction.

use runtime_db::sqlx::{self, AssertSqlSafe, Row};
use runtime_db::{Dialect, Tx};

use super::SqlStore;
use super::rows::{among, duration, job_id, json, micros, number, read};
use super::run::{UNREACHABLE, change, rows};
use super::steps::{end_attempt, finish};
use crate::error::JobsError;
use crate::job::{AttemptOutcome, Failure, JobState};
use crate::store::{ClaimRequest, Claimed};

impl SqlStore {
    /// Claims jobs whose time has come, in one transaction.
    pub(super) async fn claim_due(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        let claim = async |mut tx: Tx| {
            let tx = &mut tx;
            let now = self.now(tx).await?;
            let dialect = tx.dialect();
            let skip = if dialect == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
            let sql = format!(
                "SELECT id FROM jobs WHERE running = 0 AND run_at <= $1 AND queue IN {} AND kind IN {}
                 ORDER BY priority, run_at, id LIMIT $4 {skip}",
                among(dialect, "$2"),
                among(dialect, "$3"),
            );
            let max = i64::from(request.max);
            let (queues, kinds) = (json(&request.queues)?, json(&request.kinds)?);
            let ids = rows!(tx, sql, [now, &queues, &kinds, max], |row| row.try_get::<String, _>("id")?);
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let (ids, listed) = (json(&ids)?, among(dialect, "$1"));
            let sql = format!(
                "UPDATE jobs SET running = 1, attempt = attempt + 1, fence = fence + 1, worker = $2, lease_until = $3
                 WHERE id IN {listed}"
            );
            change!(tx, sql, &ids, &request.worker, now.saturating_add(micros(request.lease)));
            let sql = format!(
                "INSERT INTO job_attempts (job_id, number, worker, started_at)
                 SELECT id, fence, worker, {now} FROM jobs WHERE id IN {listed}"
            );
            change!(tx, sql, &ids);
            let sql = format!(
                "SELECT j.id, j.fence, j.kind, j.queue, j.attempt, j.max_attempts, d.payload, d.context, d.timeout
                 FROM jobs j JOIN job_details d ON d.id = j.id WHERE j.id IN {listed}
                 ORDER BY j.priority, j.run_at, j.id"
            );
            let read = rows!(tx, sql, [&ids], |row| {
                let (id, fence) = (row.try_get::<String, _>("id")?, row.try_get::<i64, _>("fence")?);
                let payload = read(&row.try_get::<String, _>("payload")?);
                let context = read(&row.try_get::<String, _>("context")?);
                match payload.and_then(|payload| Ok((payload, context?))) {
                    Err(error) => Err((id, fence, error.to_string())),
                    Ok((payload, context)) => Ok(Claimed {
                        id: job_id(&id)?,
                        fence: number(fence),
                        kind: row.try_get("kind")?,
                        queue: row.try_get("queue")?,
                        payload,
                        context,
                        attempt: number(row.try_get::<i64, _>("attempt")?),
                        max_attempts: number(row.try_get::<i64, _>("max_attempts")?),
                        timeout: row.try_get::<Option<i64>, _>("timeout")?.map(duration),
                    }),
                }
            });
            let mut claimed = Vec::with_capacity(read.len());
            for job in read {
                match job {
                    Ok(job) => claimed.push(job),
                    // One row that does not read back must not keep the others waiting.
                    Err((id, fence, reason)) => {
                        let failure = Failure::new("invalid", "jobs.corrupt", reason);
                        end_attempt(tx, now, &id, fence, AttemptOutcome::Failed, Some(&failure)).await?;
                        finish(tx, now, &id, JobState::Dead, None).await?;
                    }
                }
            }
            Ok(claimed)
        };
        self.db.transaction(&self.context(), claim).await
    }
}
