//! What operators see and do: parked messages, how channels stand, what is forgotten.

use std::time::Duration;

use runtime_db::Tx;
use runtime_db::sqlx::Row;
use runtime_kernel::Timestamp;

use super::run::{change, rows};
use super::settle::release_lanes;
use super::{lock, number, signed};
use crate::error::OutboxError;
use crate::memory::micros;
use crate::row::{self, HOLDING};
use crate::store::{Channel, ChannelStats, Parked};

pub(super) async fn parked(
    tx: &mut Tx,
    channel: &Channel,
    tenant: Option<&str>,
    after: u64,
    max: u32,
) -> Result<Vec<Parked>, OutboxError> {
    let sql =
        "SELECT seq, created_at, tenant, topic, attempts, state, failure, event, context FROM outbox_messages
        WHERE channel = $1 AND state IN (2, 4) AND state < 5 AND seq > $2
        AND ($3 IS NULL OR tenant = $3) ORDER BY seq LIMIT $4";
    Ok(rows!(tx, sql, [channel.as_str(), signed(after), tenant, i64::from(max)], |row| {
        let topic: String = row.try_get("topic")?;
        let (event, context): (String, String) = (row.try_get("event")?, row.try_get("context")?);
        let failure: Option<String> = row.try_get("failure")?;
        Parked {
            seq: number(row.try_get("seq")?),
            created_at: Timestamp::from_microsecond(row.try_get("created_at")?)
                .unwrap_or(Timestamp::UNIX_EPOCH),
            tenant: row.try_get("tenant")?,
            attempts: number(row.try_get("attempts")?),
            holding: row.try_get::<i64, _>("state")? == HOLDING,
            failure: failure.and_then(|failure| serde_json::from_str(&failure).ok()),
            message: row::message(topic.clone(), &event, &context).ok(),
            topic,
        }
    }))
}

pub(super) async fn redrive(
    tx: &mut Tx,
    channel: &Channel,
    tenant: Option<&str>,
    seq: Option<u64>,
) -> Result<u64, OutboxError> {
    hold_shards(tx, channel).await?;
    let sql = "UPDATE outbox_messages SET state = 0, attempts = 0, due_at = 0, failure = NULL
        WHERE channel = $1 AND state IN (2, 4) AND state < 5 AND ($2 IS NULL OR tenant = $2)
        AND ($3 IS NULL OR seq = $3) RETURNING lane";
    let lanes = rows!(tx, sql, [channel.as_str(), tenant, seq.map(signed)], |row| row
        .try_get::<Option<String>, _>("lane")?);
    let count = lanes.len();
    release(tx, channel, lanes.into_iter().flatten().collect()).await?;
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

pub(super) async fn discard(
    tx: &mut Tx,
    channel: &Channel,
    tenant: Option<&str>,
    seq: u64,
) -> Result<bool, OutboxError> {
    hold_shards(tx, channel).await?;
    let sql = "DELETE FROM outbox_messages WHERE channel = $1 AND seq = $2 AND state IN (2, 4) AND state < 5
        AND ($3 IS NULL OR tenant = $3) RETURNING lane";
    let lanes = rows!(tx, sql, [channel.as_str(), signed(seq), tenant], |row| row
        .try_get::<Option<String>, _>("lane")?);
    let found = !lanes.is_empty();
    release(tx, channel, lanes.into_iter().flatten().collect()).await?;
    Ok(found)
}

/// So that no claim decides meanwhile what waits behind what.
async fn hold_shards(tx: &mut Tx, channel: &Channel) -> Result<(), OutboxError> {
    let sql = format!(
        "SELECT shard FROM outbox_shards WHERE channel = $1 ORDER BY shard {}",
        lock(tx.dialect(), "FOR UPDATE")
    );
    rows!(tx, sql, [channel.as_str()], |row| row.try_get::<i64, _>("shard")?);
    Ok(())
}

/// Lets lanes go on in which nothing is retried or holds any more; a claim finds out about the others by itself.
async fn release(tx: &mut Tx, channel: &Channel, mut lanes: Vec<String>) -> Result<(), OutboxError> {
    lanes.sort();
    lanes.dedup();
    release_lanes(tx, channel.as_str(), &lanes).await
}

pub(super) async fn stats(tx: &mut Tx, now: i64) -> Result<Vec<ChannelStats>, OutboxError> {
    let sql = "SELECT channel, state, CAST(COUNT(*) AS BIGINT) AS many, MIN(created_at) AS oldest
        FROM outbox_messages WHERE state < 5 GROUP BY channel, state ORDER BY channel, state";
    let counted = rows!(tx, sql, [], |row| (
        row.try_get::<String, _>("channel")?,
        row.try_get::<i64, _>("state")?,
        row.try_get::<i64, _>("many")?,
        row.try_get::<i64, _>("oldest")?,
    ));
    let mut channels: Vec<ChannelStats> = Vec::new();
    for (channel, state, many, oldest) in counted {
        let last = channels.pop_if(|last| last.channel == channel);
        let mut stats = last.unwrap_or_else(|| ChannelStats { channel, ..ChannelStats::default() });
        stats.count(state, number(many), now.saturating_sub(oldest));
        channels.push(stats);
    }
    Ok(channels)
}

pub(super) async fn prune(tx: &mut Tx, now: i64, keep: Duration, max: u32) -> Result<u64, OutboxError> {
    let sql = "DELETE FROM outbox_messages WHERE seq IN (SELECT seq FROM outbox_messages
        WHERE state = 5 AND sent_at < $1 ORDER BY sent_at LIMIT $2)";
    Ok(change!(tx, sql, now.saturating_sub(micros(keep)), i64::from(max)))
}
