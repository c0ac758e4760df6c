//! The claim: leases shards that have something to send, and reads it, in one transaction.

use runtime_db::Tx;
use runtime_db::sqlx::Row;
use runtime_events::Message;
use runtime_kernel::Timestamp;

use super::run::{change, rows};
use super::settle::release_lanes;
use super::{json, listed, lock, number, signed};
use crate::config::OnParked;
use crate::error::OutboxError;
use crate::memory::micros;
use crate::row::{self, HOLDING, PARKED, RETRYING};
use crate::store::{CLAIM_SHARDS, Claim, ClaimRequest, Claimed, Failure, Lease};

/// A shard whose row this transaction has locked.
struct Shard {
    place: i64,
    fence: i64,
    handed: i64,
    careful: i64,
    suspect: Option<i64>,
    lost: bool,
}

/// A row that may be sent, or has to wait behind another.
struct Raw {
    seq: i64,
    created_at: i64,
    attempts: i64,
    again: bool,
    blocked: bool,
    topic: String,
    event: String,
    context: String,
}

/// What is handed out of one shard.
struct Taken {
    shard: Shard,
    seqs: Vec<i64>,
}

pub(super) async fn claim(
    tx: &mut Tx,
    now: i64,
    request: &ClaimRequest,
) -> Result<Option<Claim>, OutboxError> {
    let (mut messages, mut taken) = (Vec::new(), Vec::<Taken>::new());
    let most = usize::try_from(request.max.max(1)).unwrap_or(usize::MAX);
    for mut shard in find(tx, now, request).await? {
        if shard.lost {
            blame(tx, now, request, &mut shard).await?;
        }
        let careful = shard.careful > 0;
        // One whose messages are suspected is worked by itself, message by message.
        let room = if careful { usize::from(messages.is_empty()) } else { most - messages.len() };
        let found = if room == 0 { Vec::new() } else { read(tx, now, request, &shard, room).await? };
        if found.is_empty() {
            if shard.lost {
                keep_blame(tx, request, &shard).await?;
            }
            continue;
        }
        taken.push(Taken { shard, seqs: found.iter().map(|claimed| signed(claimed.seq)).collect() });
        messages.extend(found);
        if careful || messages.len() >= most {
            break;
        }
    }
    if messages.is_empty() {
        return Ok(None);
    }
    let fence = taken.iter().map(|taken| taken.shard.fence).max().unwrap_or_default() + 1;
    let (until, alone) = (now.saturating_add(micros(request.lease)), messages.len() == 1);
    let mut shards = Vec::with_capacity(taken.len());
    for Taken { shard, seqs } in taken {
        let sql = "UPDATE outbox_shards SET fence = $3, lease_until = $4, claimed_at = $5, handed = $6, careful = $7,
            suspect = $8 WHERE channel = $1 AND shard = $2";
        let suspect = seqs.first().copied().filter(|_| alone);
        let handed = i64::try_from(seqs.len()).unwrap_or(i64::MAX);
        let channel = request.channel.as_str();
        change!(tx, sql, channel, shard.place, fence, until, now, handed, shard.careful, suspect);
        shards.push(number(shard.place));
    }
    let lease = Lease { channel: request.channel.clone(), shards, fence: number(fence) };
    Ok(Some(Claim { lease, messages }))
}

/// Shards that nobody holds and that have something to send, those longest without a claim first.
async fn find(tx: &mut Tx, now: i64, request: &ClaimRequest) -> Result<Vec<Shard>, OutboxError> {
    let skip = lock(tx.dialect(), "FOR UPDATE OF s SKIP LOCKED");
    let sql = format!(
        "SELECT s.shard, s.fence, s.handed, s.careful, s.suspect,
             CAST(CASE WHEN s.lease_until IS NULL THEN 0 ELSE 1 END AS BIGINT) AS leased
         FROM outbox_shards s WHERE s.channel = $1 AND (s.lease_until IS NULL OR s.lease_until < $2)
         AND (EXISTS (SELECT 1 FROM outbox_messages m WHERE m.channel = s.channel AND m.shard = s.shard
                 AND m.state = 0 AND m.state < 5)
             OR EXISTS (SELECT 1 FROM outbox_messages m WHERE m.channel = s.channel AND m.shard = s.shard
                 AND m.state = 1 AND m.state < 5 AND m.due_at <= $2))
         ORDER BY s.claimed_at, s.shard LIMIT $3 {skip}"
    );
    let most = i64::try_from(CLAIM_SHARDS).unwrap_or(i64::MAX);
    Ok(rows!(tx, sql, [request.channel.as_str(), now, most], |row| Shard {
        place: row.try_get("shard")?,
        fence: row.try_get("fence")?,
        handed: row.try_get("handed")?,
        careful: row.try_get("careful")?,
        suspect: row.try_get("suspect")?,
        lost: row.try_get::<i64, _>("leased")? == 1,
    }))
}

/// A relay was lost: its one message has failed, or its many are looked at one by one.
async fn blame(tx: &mut Tx, now: i64, request: &ClaimRequest, shard: &mut Shard) -> Result<(), OutboxError> {
    let Some(seq) = shard.suspect.take() else {
        shard.careful = shard.careful.max(shard.handed);
        shard.handed = 0;
        return Ok(());
    };
    shard.careful = (shard.careful - 1).max(0);
    shard.handed = 0;
    let parked = if request.on_parked == OnParked::Hold { HOLDING } else { PARKED };
    let sql = "UPDATE outbox_messages SET attempts = attempts + 1, due_at = $2, failure = $3,
        state = CASE WHEN attempts + 1 >= $4 THEN $5 ELSE $6 END
        WHERE seq = $1 AND state IN (0, 1) RETURNING channel, lane, state";
    let (failure, most) = (json(&Failure::lost())?, i64::from(request.max_attempts));
    let blamed = rows!(tx, sql, [seq, now, &failure, most, parked, RETRYING], |row| (
        row.try_get::<Option<String>, _>("lane")?,
        row.try_get::<i64, _>("state")?,
    ));
    if let Some((Some(lane), PARKED)) = blamed.first() {
        release_lanes(tx, request.channel.as_str(), std::slice::from_ref(lane)).await?;
    }
    Ok(())
}

/// Remembers who is to blame in a shard that hands out nothing now.
async fn keep_blame(tx: &mut Tx, request: &ClaimRequest, shard: &Shard) -> Result<(), OutboxError> {
    let sql = "UPDATE outbox_shards SET lease_until = NULL, fence = fence + 1, handed = 0, careful = $3, suspect = NULL
        WHERE channel = $1 AND shard = $2";
    change!(tx, sql, request.channel.as_str(), shard.place, shard.careful);
    Ok(())
}

/// What can be sent of a shard: retries that are due, at most half of it, and what is new.
async fn read(
    tx: &mut Tx,
    now: i64,
    request: &ClaimRequest,
    shard: &Shard,
    room: usize,
) -> Result<Vec<Claimed>, OutboxError> {
    const COLUMNS: &str = "m.seq, m.created_at, m.attempts, m.topic, m.event, m.context";
    let sql = format!(
        "SELECT * FROM (SELECT {COLUMNS}, CAST(1 AS BIGINT) AS again, CAST(0 AS BIGINT) AS blocked
             FROM outbox_messages m WHERE m.channel = $1 AND m.shard = $2 AND m.state = 1 AND m.state < 5
             AND m.due_at <= $3 ORDER BY m.due_at, m.seq LIMIT $4) due
         UNION ALL SELECT * FROM (SELECT {COLUMNS}, CAST(0 AS BIGINT) AS again,
                 CAST(CASE WHEN m.lane IS NOT NULL AND EXISTS (SELECT 1 FROM outbox_messages b
                     WHERE b.channel = m.channel AND b.lane = m.lane AND b.state IN (1, 4)
                     AND b.state > 0 AND b.state < 5) THEN 1 ELSE 0 END AS BIGINT) AS blocked
             FROM outbox_messages m WHERE m.channel = $1 AND m.shard = $2 AND m.state = 0 AND m.state < 5
             ORDER BY m.seq LIMIT $5) fresh"
    );
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    loop {
        let channel = request.channel.as_str();
        let raw = rows!(tx, sql.clone(), [channel, shard.place, now, (limit / 2).max(1), limit], |row| Raw {
            seq: row.try_get("seq")?,
            created_at: row.try_get("created_at")?,
            attempts: row.try_get("attempts")?,
            again: row.try_get::<i64, _>("again")? == 1,
            blocked: row.try_get::<i64, _>("blocked")? == 1,
            topic: row.try_get("topic")?,
            event: row.try_get("event")?,
            context: row.try_get("context")?,
        });
        if raw.is_empty() {
            return Ok(found);
        }
        let blocked: Vec<i64> = raw.iter().filter(|raw| raw.blocked).map(|raw| raw.seq).collect();
        if !blocked.is_empty() {
            let list = listed(tx.dialect(), "$1");
            let sql = format!("UPDATE outbox_messages SET state = 3 WHERE seq IN (SELECT n FROM {list})");
            change!(tx, sql, json(&blocked)?);
        }
        for raw in raw.into_iter().filter(|raw| !raw.blocked).take(room) {
            match open(&raw) {
                Ok(message) => found.push(claimed(&raw, message)),
                Err(problem) => {
                    set_aside(tx, request, &raw, &problem).await?;
                    // Whether the rest of its key may be sent is another question now.
                    break;
                }
            }
        }
        // What only waits behind others is out of the way now, and so is what does not read back.
        if !found.is_empty() {
            return Ok(found);
        }
    }
}

fn open(raw: &Raw) -> Result<Message, OutboxError> {
    row::message(raw.topic.clone(), &raw.event, &raw.context)
}

fn claimed(raw: &Raw, message: Message) -> Claimed {
    Claimed {
        seq: number(raw.seq),
        created_at: Timestamp::from_microsecond(raw.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        attempts: number(raw.attempts),
        again: raw.again,
        message,
    }
}

/// Parks a row that is no message: it must not keep the others from being claimed.
async fn set_aside(
    tx: &mut Tx,
    request: &ClaimRequest,
    raw: &Raw,
    problem: &OutboxError,
) -> Result<(), OutboxError> {
    tracing::error!(seq = raw.seq, %problem, "a message that does not read back was parked");
    let parked = if request.on_parked == OnParked::Hold { HOLDING } else { PARKED };
    let failure = json(&Failure::corrupt(problem))?;
    let sql = "UPDATE outbox_messages SET state = $2, failure = $3 WHERE seq = $1 RETURNING lane";
    let lanes =
        rows!(tx, sql, [raw.seq, parked, &failure], |row| row.try_get::<Option<String>, _>("lane")?);
    if let Some(Some(lane)) = lanes.first()
        && parked == PARKED
    {
        release_lanes(tx, request.channel.as_str(), std::slice::from_ref(lane)).await?;
    }
    Ok(())
}
