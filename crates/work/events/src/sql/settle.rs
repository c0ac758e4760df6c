//! The end of a claim: what became of its events, and how far the partition has been read.

use std::time::Duration;

use runtime_db::Tx;
use runtime_db::sqlx::Row;

use super::rows::{json, lock, number, signed};
use super::run::{change, rows};
use crate::error::EventsError;
use crate::log::{Claim, Claimed, Failure, Lease, Settled, Verdict, counted, reached};
use crate::memory::micros;

pub(super) async fn renew(
    tx: &mut Tx,
    now: i64,
    lease: &Lease,
    until: Duration,
) -> Result<bool, EventsError> {
    let sql = "UPDATE event_cursors SET lease_until = $5
        WHERE subscription = $1 AND part = $2 AND fence = $3 AND lease_until >= $4";
    let until = now.saturating_add(micros(until));
    let changed =
        change!(tx, sql, &lease.subscription, i64::from(lease.partition), signed(lease.fence), now, until);
    Ok(changed == 1)
}

pub(super) async fn settle(
    tx: &mut Tx,
    now: i64,
    claim: &Claim,
    settled: &[Settled],
) -> Result<bool, EventsError> {
    let (lease, part) = (&claim.lease, i64::from(claim.lease.partition));
    let sql = format!(
        "SELECT position FROM event_cursors WHERE subscription = $1 AND part = $2 AND fence = $3
         AND lease_until >= $4 {}",
        lock(tx.dialect(), "FOR UPDATE")
    );
    let held = rows!(tx, sql, [&lease.subscription, part, signed(lease.fence), now], |row| row
        .try_get::<i64, _>("position")?);
    let Some(position) = held.first() else { return Ok(false) };
    let through = reached(claim, settled, number(*position));
    for (event, verdict) in counted(claim, settled, through) {
        apply(tx, now, lease, event, verdict).await?;
    }
    let sql = "UPDATE event_cursors SET position = $3, lease_until = NULL, suspect = NULL,
        careful = CASE WHEN careful > 0 THEN careful - 1 ELSE 0 END WHERE subscription = $1 AND part = $2";
    change!(tx, sql, &lease.subscription, part, signed(through));
    Ok(true)
}

async fn apply(
    tx: &mut Tx,
    now: i64,
    lease: &Lease,
    event: &Claimed,
    verdict: &Verdict,
) -> Result<(), EventsError> {
    let position = signed(event.stored.position);
    let (due, parked, attempts, failure): (i64, i64, u32, Option<&Failure>) = match verdict {
        Verdict::Done => {
            if event.again {
                let sql = "DELETE FROM event_retries WHERE subscription = $1 AND position = $2";
                change!(tx, sql, &lease.subscription, position);
            }
            return Ok(());
        }
        Verdict::Behind => (now, 0, 0, None),
        Verdict::Retry(delay, failure) => {
            (now.saturating_add(micros(*delay)), 0, event.attempt, Some(failure))
        }
        Verdict::Park(failure) => (now, 1, event.attempt, Some(failure)),
    };
    let failure = failure.map(json).transpose()?;
    let message = &event.stored.message;
    // Who waits behind another and has failed before keeps what is known of it.
    let keep = i64::from(*verdict == Verdict::Behind);
    let sql = "INSERT INTO event_retries
            (subscription, position, part, topic, tenant, lane, attempts, due_at, parked, failure)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (subscription, position) DO UPDATE SET due_at = excluded.due_at, parked = excluded.parked,
            attempts = CASE WHEN $11 = 1 THEN event_retries.attempts ELSE excluded.attempts END,
            failure = CASE WHEN $11 = 1 THEN event_retries.failure ELSE excluded.failure END";
    change!(
        tx,
        sql,
        &lease.subscription,
        position,
        i64::from(lease.partition),
        &message.topic,
        message.tenant(),
        message.lane(),
        i64::from(attempts),
        due,
        parked,
        &failure,
        keep
    );
    Ok(())
}
