//! The end of a claim: its messages sent, to be tried again, or set aside.

use std::collections::HashSet;
use std::time::Duration;

use runtime_db::Tx;
use runtime_db::sqlx::Row;

use super::run::{change, rows};
use super::{json, listed, listed_text, lock, signed};
use crate::config::OnParked;
use crate::error::OutboxError;
use crate::memory::micros;
use crate::row::{HOLDING, PARKED, RETRYING, SENT};
use crate::store::{Lease, Settled, Verdict};

/// The shards of a lease that are still its own, their rows locked.
async fn held(tx: &mut Tx, lease: &Lease) -> Result<Vec<i64>, OutboxError> {
    let (list, locked) = (listed(tx.dialect(), "$3"), lock(tx.dialect(), "FOR UPDATE"));
    // What ran out is still held until somebody else takes it.
    let sql = format!(
        "SELECT shard FROM outbox_shards WHERE channel = $1 AND fence = $2 AND lease_until IS NOT NULL
         AND shard IN (SELECT n FROM {list}) ORDER BY shard {locked}"
    );
    let (channel, fence, shards) = (lease.channel.as_str(), signed(lease.fence), json(&lease.shards)?);
    Ok(rows!(tx, sql, [channel, fence, &shards], |row| row.try_get::<i64, _>("shard")?))
}

pub(super) async fn renew(
    tx: &mut Tx,
    now: i64,
    lease: &Lease,
    until: Duration,
) -> Result<bool, OutboxError> {
    let held = held(tx, lease).await?;
    let list = listed(tx.dialect(), "$2");
    let sql = format!(
        "UPDATE outbox_shards SET lease_until = $3 WHERE channel = $1 AND shard IN (SELECT n FROM {list})"
    );
    change!(tx, sql, lease.channel.as_str(), json(&held)?, now.saturating_add(micros(until)));
    Ok(held.len() == lease.shards.len())
}

pub(super) async fn settle(
    tx: &mut Tx,
    now: i64,
    lease: &Lease,
    settled: &[Settled],
    keep_sent: bool,
) -> Result<bool, OutboxError> {
    let held = held(tx, lease).await?;
    let (channel, shards) = (lease.channel.as_str(), json(&held)?);
    let (seqs, mine) = (listed(tx.dialect(), "$1"), listed(tx.dialect(), "$2"));
    let mut free = HashSet::new();
    let sent = settled.iter().filter(|one| one.verdict == Verdict::Sent).map(|one| one.seq);
    let sent = json(&sent.collect::<Vec<_>>())?;
    if sent.len() > 2 {
        // Only a retried message had others waiting behind it.
        let sql = format!(
            "SELECT DISTINCT lane FROM outbox_messages WHERE seq IN (SELECT n FROM {seqs})
             AND shard IN (SELECT n FROM {mine}) AND state = 1 AND lane IS NOT NULL"
        );
        free.extend(rows!(tx, sql, [&sent, &shards], |row| row.try_get::<String, _>("lane")?));
        let which =
            format!("seq IN (SELECT n FROM {seqs}) AND shard IN (SELECT n FROM {mine}) AND state IN (0, 1)");
        if keep_sent {
            let sql =
                format!("UPDATE outbox_messages SET state = $3, sent_at = $4, failure = NULL WHERE {which}");
            change!(tx, sql, &sent, &shards, SENT, now);
        } else {
            change!(tx, format!("DELETE FROM outbox_messages WHERE {which}"), &sent, &shards);
        }
    }
    for one in settled {
        let (state, attempts, due, failure) = match &one.verdict {
            Verdict::Sent => continue,
            Verdict::Retry { delay, attempts, failure } => {
                (RETRYING, *attempts, now.saturating_add(micros(*delay)), failure)
            }
            Verdict::Park { attempts, on_parked: OnParked::Hold, failure } => {
                (HOLDING, *attempts, 0, failure)
            }
            Verdict::Park { attempts, on_parked: OnParked::Continue, failure } => {
                (PARKED, *attempts, 0, failure)
            }
        };
        let sql = format!(
            "UPDATE outbox_messages SET state = $3, attempts = $4, due_at = $5, failure = $6
             WHERE seq = $1 AND shard IN (SELECT n FROM {mine}) AND state IN (0, 1) RETURNING lane"
        );
        let (seq, attempts, failure) = (signed(one.seq), i64::from(attempts), json(failure)?);
        let lanes = rows!(tx, sql, [seq, &shards, state, attempts, due, &failure], |row| row
            .try_get::<Option<String>, _>("lane")?);
        if state == PARKED {
            free.extend(lanes.into_iter().flatten());
        }
    }
    release_lanes(tx, channel, &free.into_iter().collect::<Vec<_>>()).await?;
    let list = listed(tx.dialect(), "$2");
    let sql = format!(
        "UPDATE outbox_shards SET lease_until = NULL, suspect = NULL, handed = 0,
             careful = CASE WHEN careful > handed THEN careful - handed ELSE 0 END
         WHERE channel = $1 AND shard IN (SELECT n FROM {list})"
    );
    change!(tx, sql, channel, &shards);
    Ok(held.len() == lease.shards.len())
}

/// Lets go on what waits in lanes whose first message is out of the way. The caller holds their shards' rows.
pub(super) async fn release_lanes(tx: &mut Tx, channel: &str, lanes: &[String]) -> Result<(), OutboxError> {
    if lanes.is_empty() {
        return Ok(());
    }
    let list = listed_text(tx.dialect(), "$2");
    let sql = format!(
        "UPDATE outbox_messages SET state = 0 WHERE channel = $1 AND state = 3 AND state > 0 AND state < 5
         AND lane IN (SELECT t FROM {list})"
    );
    change!(tx, sql, channel, json(lanes)?);
    Ok(())
}
