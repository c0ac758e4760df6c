//! Claiming a tick and ending the claim: steps of a transaction, so that the effect can be part of it.

use std::time::Duration;

use runtime_db::sqlx::Row;
use runtime_db::{Dialect, Tx};
use runtime_kernel::Timestamp;

use super::rows::{micros, number, timestamp};
use super::run::{change, rows};
use super::{SqlStore, signed};
use crate::action::FireInTx;
use crate::error::CronError;
use crate::store::{
    Candidate, Claim, ClaimedTick, Decision, Fired, Key, LOST, OVERLAPPED, Tick, TickState, Verdict, decide,
};

struct Found {
    state: String,
    due: i64,
    attempt: u32,
    fence: i64,
    manual: bool,
    lease_until: Option<i64>,
}

/// What a tick fired in one transaction came to.
#[derive(Debug)]
pub(crate) enum FiredInTx {
    /// The tick and its effect are committed together.
    Fired(Fired),
    /// There was nothing to claim.
    Unclaimed(Claim),
}

impl SqlStore {
    /// Claims a tick inside a transaction.
    pub(crate) async fn claim_in(
        &self,
        tx: &mut Tx,
        key: &Key,
        fire_time: Timestamp,
        lease: Duration,
    ) -> Result<Claim, CronError> {
        let now = tx.time().await?.as_microsecond();
        // Whoever has the schedule's row decides about its ticks: two claims cannot pass each other by.
        let Some(stored) = Self::lock(tx, key).await? else { return Ok(Claim::Taken) };
        let at = fire_time.as_microsecond();
        let sql = "SELECT state, due_at, attempt, fence, manual, lease_until FROM cron_ticks
            WHERE tenant = $1 AND name = $2 AND fire_time = $3";
        let row = rows!(tx, sql, [&key.tenant, &key.name, at], |row| Found {
            state: row.try_get("state")?,
            due: row.try_get("due_at")?,
            attempt: number(row.try_get("attempt")?),
            fence: row.try_get("fence")?,
            manual: row.try_get::<i64, _>("manual")? == 1,
            lease_until: row.try_get("lease_until")?,
        })
        .pop();
        let Some(row) = row else { return Ok(Claim::Taken) };
        let lost = row.state == "running" && row.lease_until.is_none_or(|until| until < now);
        if !lost && (row.state != "pending" || row.due > now) {
            return Ok(Claim::Taken);
        }
        let sql =
            "SELECT fire_time, attempt FROM cron_ticks WHERE tenant = $1 AND name = $2 AND fire_time <> $3
            AND state IN ('pending', 'running')";
        let others = rows!(tx, sql, [&key.tenant, &key.name, at], |row| (
            row.try_get::<i64, _>("fire_time")?,
            row.try_get::<i64, _>("attempt")?,
        ));
        let count = |which: &dyn Fn(&(i64, i64)) -> bool| {
            u32::try_from(others.iter().filter(|other| which(other)).count()).unwrap_or(u32::MAX)
        };
        let candidate = Candidate {
            attempt: row.attempt,
            lost,
            begun: count(&|(_, attempt)| *attempt > 0),
            earlier: count(&|(other, _)| *other < at),
            waiting: count(&|(other, attempt)| *other < at && *attempt == 0),
        };
        let keep = stored.schedule.keep;
        match decide(&stored.schedule, candidate) {
            Decision::Wait => return Ok(Claim::Waits),
            Decision::Skip => {
                end(tx, key, at, TickState::Skipped, now, Some(OVERLAPPED), keep).await?;
                return Ok(Claim::Skipped);
            }
            Decision::GiveUp => {
                end(tx, key, at, TickState::Failed, now, Some(LOST), keep).await?;
                return Ok(Claim::Lost);
            }
            Decision::Run => {}
        }
        let sql = "UPDATE cron_ticks SET state = 'running', attempt = attempt + 1, fence = fence + 1, fired_at = $4,
            lease_until = $5 WHERE tenant = $1 AND name = $2 AND fire_time = $3 AND fence = $6";
        let until = now.saturating_add(micros(lease));
        if change!(tx, sql, &key.tenant, &key.name, at, now, until, row.fence) == 0 {
            return Ok(Claim::Taken);
        }
        Ok(Claim::Claimed(Box::new(ClaimedTick {
            key: key.clone(),
            fire_time,
            stored,
            fired_at: timestamp(now),
            attempt: row.attempt + 1,
            fence: number(row.fence + 1),
            manual: row.manual,
        })))
    }

    /// Ends a claim inside a transaction; says whether it still held.
    pub(crate) async fn finish_in(
        &self,
        tx: &mut Tx,
        claimed: &ClaimedTick,
        verdict: &Verdict,
    ) -> Result<bool, CronError> {
        let now = tx.time().await?.as_microsecond();
        let (key, at) = (&claimed.key, claimed.fire_time.as_microsecond());
        let lock = if tx.dialect() == Dialect::Postgres { "FOR UPDATE" } else { "" };
        let sql = format!(
            "SELECT fence FROM cron_ticks WHERE tenant = $1 AND name = $2 AND fire_time = $3 AND fence = $4
             AND state = 'running' {lock}"
        );
        let held = rows!(tx, sql, [&key.tenant, &key.name, at, signed(claimed.fence)], |row| row
            .try_get::<i64, _>("fence")?);
        if held.is_empty() {
            return Ok(false);
        }
        let keep = claimed.stored.schedule.keep;
        match verdict {
            Verdict::Done => end(tx, key, at, TickState::Done, now, None, keep).await?,
            Verdict::Skipped(note) => end(tx, key, at, TickState::Skipped, now, Some(note), keep).await?,
            Verdict::Failed(note) => end(tx, key, at, TickState::Failed, now, Some(note), keep).await?,
            Verdict::Retry(delay, note) => {
                let sql = "UPDATE cron_ticks SET state = 'pending', due_at = $4, note = $5
                    WHERE tenant = $1 AND name = $2 AND fire_time = $3";
                let due = now.saturating_add(micros(*delay));
                change!(tx, sql, &key.tenant, &key.name, at, due, note);
            }
            Verdict::Waits(delay) => {
                let sql = "UPDATE cron_ticks SET state = 'pending', due_at = $4, attempt = attempt - 1
                    WHERE tenant = $1 AND name = $2 AND fire_time = $3";
                change!(tx, sql, &key.tenant, &key.name, at, now.saturating_add(micros(*delay)));
            }
        }
        Ok(true)
    }

    /// Claims a tick, runs an action and ends the tick, in one transaction: committed together or not at all.
    ///
    /// # Errors
    /// [`CronError::Action`] when the action failed: nothing of it is kept, and the tick is as it was before.
    pub(crate) async fn fire_in(
        &self,
        action: &dyn FireInTx,
        key: &Key,
        fire_time: Timestamp,
        lease: Duration,
        tick: impl Fn(&ClaimedTick) -> Tick,
    ) -> Result<FiredInTx, CronError> {
        let work = async |mut tx: Tx| {
            let tx = &mut tx;
            let claimed = match self.claim_in(tx, key, fire_time, lease).await? {
                Claim::Claimed(claimed) => claimed,
                other => return Ok(FiredInTx::Unclaimed(other)),
            };
            let fired = action.fire_in(tx, &tick(&claimed)).await.map_err(CronError::Action)?;
            let verdict = Verdict::of(&fired);
            if !self.finish_in(tx, &claimed, &verdict).await? {
                return Err(CronError::Corrupt("a tick left its own transaction".to_owned()));
            }
            Ok(FiredInTx::Fired(fired))
        };
        self.db.transaction(&self.context(), work).await
    }
}

impl SqlStore {
    /// Records that an attempt in a transaction failed, of which nothing else is left. Says what is then recorded.
    pub(crate) async fn failed_in_tx(
        &self,
        key: &Key,
        fire_time: Timestamp,
        judge: impl Fn(&ClaimedTick) -> Verdict,
    ) -> Result<Option<Verdict>, CronError> {
        let work = async |mut tx: Tx| {
            let tx = &mut tx;
            let Claim::Claimed(claimed) = self.claim_in(tx, key, fire_time, Duration::ZERO).await? else {
                return Ok(None);
            };
            let verdict = judge(&claimed);
            self.finish_in(tx, &claimed, &verdict).await?;
            Ok::<_, CronError>(Some(verdict))
        };
        self.db.transaction(&self.context(), work).await
    }
}

/// Ends a tick and forgets what the history no longer keeps.
pub(super) async fn end(
    tx: &mut Tx,
    key: &Key,
    at: i64,
    state: TickState,
    now: i64,
    note: Option<&str>,
    keep: u32,
) -> Result<(), CronError> {
    let sql = "UPDATE cron_ticks SET state = $4, finished_at = $5, note = $6, lease_until = NULL
        WHERE tenant = $1 AND name = $2 AND fire_time = $3";
    change!(tx, sql, &key.tenant, &key.name, at, state.as_str(), now, note);
    let sql = "DELETE FROM cron_ticks WHERE tenant = $1 AND name = $2 AND state NOT IN ('pending', 'running')
        AND fire_time <= (SELECT fire_time FROM cron_ticks WHERE tenant = $1 AND name = $2
        AND state NOT IN ('pending', 'running') ORDER BY fire_time DESC LIMIT 1 OFFSET $3)";
    change!(tx, sql, &key.tenant, &key.name, i64::from(keep));
    Ok(())
}
