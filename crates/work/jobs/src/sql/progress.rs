//! What attempts keep while they run: progress for people, checkpoints for the next attempt.

use runtime_db::sqlx::{self, Row as _};
use runtime_db::{Tx, on_connection};
use serde_json::Value;

use super::row::{json, read};
use super::{SqlStore, on_reader};
use crate::error::JobsError;
use crate::job::JobId;
use crate::store::Progress;

impl SqlStore {
    pub(super) async fn write_progress(
        &self,
        tx: &mut Tx,
        id: JobId,
        fence: u64,
        progress: Option<&Value>,
        checkpoint: Option<&Value>,
    ) -> Result<(), JobsError> {
        let fence = i64::try_from(fence).unwrap_or(-1);
        // The lease's lock keeps it from being ended or taken back meanwhile.
        let standing = self.lock_leases(tx, &[fence]).await?;
        let held = standing.get(&fence).filter(|held| held.until >= held.now);
        let place = match held {
            Some(_) => self.lease(tx, fence).await?.and_then(|lease| lease.place(id.as_uuid())),
            None => None,
        };
        let open = place.is_some_and(|place| held.is_some_and(|held| !held.ended.has(place)));
        if !open {
            return Err(JobsError::LeaseLost(id));
        }
        let sql = "INSERT INTO runtime_jobs_progress (job_id, progress, checkpoint) VALUES ($1, $2, $3)
            ON CONFLICT (job_id) DO UPDATE SET
            progress = COALESCE(excluded.progress, runtime_jobs_progress.progress),
            checkpoint = COALESCE(excluded.checkpoint, runtime_jobs_progress.checkpoint)";
        let (progress, checkpoint) = (progress.map(json).transpose()?, checkpoint.map(json).transpose()?);
        on_connection!(tx, conn => {
            sqlx::query(sql)
                .bind(id.as_uuid())
                .bind(&progress)
                .bind(&checkpoint)
                .execute(&mut *conn)
                .await?
                .rows_affected()
        })?;
        Ok(())
    }

    pub(super) async fn read_progress(&self, id: JobId) -> Result<Progress, JobsError> {
        let sql = "SELECT progress, checkpoint FROM runtime_jobs_progress WHERE job_id = $1";
        let kept: Option<(Option<String>, Option<String>)> = on_reader!(self.db, pool => {
            match sqlx::query(sql).bind(id.as_uuid()).fetch_optional(pool).await? {
                Some(row) => Some((row.try_get(0)?, row.try_get(1)?)),
                None => None,
            }
        });
        let Some((progress, checkpoint)) = kept else { return Ok(Progress::default()) };
        Ok(Progress {
            progress: progress.as_deref().map(read).transpose()?,
            checkpoint: checkpoint.as_deref().map(read).transpose()?,
        })
    }
}
