//! The claim: finds a partition with something to do, and reads it, in one transaction.

use runtime_db::Tx;
use runtime_db::sqlx::Row;

use super::rows::{STORED, json, lock, number, signed, stored};
use super::run::{change, rows};
use crate::error::EventsError;
use crate::log::{Claim, ClaimRequest, Claimed, Lease, lost};
use crate::memory::micros;

/// Of a subscription's waiting events `r`, those whose turn has come: due, and the first of their lane.
const DUE: &str = "r.parked = 0 AND r.due_at <= $2 AND NOT EXISTS (SELECT 1 FROM event_retries b
    WHERE b.subscription = r.subscription AND b.lane = r.lane AND b.parked = 0 AND b.position < r.position)";

struct Cursor {
    part: i64,
    parts: i64,
    position: i64,
    handed: i64,
    careful: i64,
    suspect: Option<i64>,
    fence: i64,
    lost: bool,
    newest: i64,
}

pub(super) async fn claim(
    tx: &mut Tx,
    now: i64,
    topic: &str,
    request: &ClaimRequest,
) -> Result<Option<Claim>, EventsError> {
    while let Some(mut cursor) = find(tx, now, request).await? {
        if cursor.lost {
            blame(tx, now, topic, request, &mut cursor).await?;
        }
        let max = if cursor.careful > 0 { 1 } else { i64::from(request.max.max(1)) };
        let (events, through) = read(tx, now, topic, request, &cursor, max).await?;
        let update =
            "UPDATE event_cursors SET position = $3, handed = $4, careful = $5, suspect = $6, fence = $7,
            worker = $8, lease_until = $9, claimed_at = $10 WHERE subscription = $1 AND part = $2";
        if events.is_empty() {
            // Nothing of what is new falls into this partition.
            let (worker, until) = (None::<String>, None::<i64>);
            change!(
                tx,
                update,
                &request.subscription,
                cursor.part,
                through,
                0_i64,
                cursor.careful,
                None::<i64>,
                cursor.fence,
                &worker,
                until,
                now
            );
            continue;
        }
        let suspect = match &*events {
            [only] => Some(signed(only.stored.position)),
            _ => None,
        };
        let handed = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let until = Some(now.saturating_add(micros(request.lease)));
        let worker = Some(&request.worker);
        let fence = cursor.fence + 1;
        change!(
            tx,
            update,
            &request.subscription,
            cursor.part,
            cursor.position,
            handed,
            cursor.careful,
            suspect,
            fence,
            worker,
            until,
            now
        );
        let lease = Lease {
            subscription: request.subscription.clone(),
            partition: number(cursor.part),
            fence: number(fence),
        };
        return Ok(Some(Claim { lease, events, through: number(through) }));
    }
    Ok(None)
}

/// A partition that nobody holds and that has something unread or due.
async fn find(tx: &mut Tx, now: i64, request: &ClaimRequest) -> Result<Option<Cursor>, EventsError> {
    let skip = lock(tx.dialect(), "FOR UPDATE OF c SKIP LOCKED");
    let sql = format!(
        "SELECT c.part, c.parts, c.position, c.handed, c.careful, c.suspect, c.fence,
             CAST(CASE WHEN c.lease_until IS NULL THEN 0 ELSE 1 END AS BIGINT) AS leased,
             COALESCE((SELECT t.newest FROM event_topics t WHERE t.topic = c.topic), 0) AS newest
         FROM event_cursors c WHERE c.subscription = $1 AND (c.lease_until IS NULL OR c.lease_until < $2)
         AND (c.position < (SELECT t.newest FROM event_topics t WHERE t.topic = c.topic)
             OR EXISTS (SELECT 1 FROM event_retries r
                 WHERE r.subscription = c.subscription AND r.part = c.part AND {DUE})
             OR c.lease_until IS NOT NULL)
         ORDER BY c.claimed_at, c.part LIMIT 1 {skip}"
    );
    let mut found = rows!(tx, sql, [&request.subscription, now], |row| Cursor {
        part: row.try_get("part")?,
        parts: row.try_get("parts")?,
        position: row.try_get("position")?,
        handed: row.try_get("handed")?,
        careful: row.try_get("careful")?,
        suspect: row.try_get("suspect")?,
        fence: row.try_get("fence")?,
        lost: row.try_get::<i64, _>("leased")? == 1,
        newest: row.try_get("newest")?,
    });
    Ok(found.pop())
}

/// A consumer was lost: its one event has failed, or its many are looked at one by one.
async fn blame(
    tx: &mut Tx,
    now: i64,
    topic: &str,
    request: &ClaimRequest,
    cursor: &mut Cursor,
) -> Result<(), EventsError> {
    let Some(position) = cursor.suspect.take() else {
        cursor.careful = cursor.handed;
        return Ok(());
    };
    cursor.careful = (cursor.careful - 1).max(0);
    cursor.position = cursor.position.max(position);
    let failure = json(&lost())?;
    let sql = "INSERT INTO event_retries
            (subscription, position, part, topic, tenant, lane, attempts, due_at, parked, failure)
        SELECT $1, l.position, $4, l.topic, d.tenant, d.lane, 1, $5, CASE WHEN 1 >= $6 THEN 1 ELSE 0 END, $7
        FROM event_log l JOIN event_data d ON d.seq = l.seq WHERE l.topic = $2 AND l.position = $3
        ON CONFLICT (subscription, position) DO UPDATE SET attempts = event_retries.attempts + 1,
            due_at = excluded.due_at, failure = excluded.failure,
            parked = CASE WHEN event_retries.attempts + 1 >= $6 THEN 1 ELSE 0 END";
    let most = i64::from(request.max_attempts);
    change!(tx, sql, &request.subscription, topic, position, cursor.part, now, most, &failure);
    Ok(())
}

/// What is to be done in the partition, and how far it reaches.
async fn read(
    tx: &mut Tx,
    now: i64,
    topic: &str,
    request: &ClaimRequest,
    cursor: &Cursor,
    max: i64,
) -> Result<(Vec<Claimed>, i64), EventsError> {
    let sql = format!(
        "SELECT {STORED}, r.attempts FROM event_retries r
         JOIN event_log l ON l.topic = r.topic AND l.position = r.position JOIN event_data d ON d.seq = l.seq
         WHERE r.subscription = $1 AND r.part = $3 AND {DUE} ORDER BY r.position LIMIT $4"
    );
    let most = (max / 2).max(1);
    let mut events = rows!(tx, sql, [&request.subscription, now, cursor.part, most], |row| Claimed {
        stored: stored(row)?,
        attempt: number::<u32>(row.try_get::<i64, _>("attempts")?).saturating_add(1),
        held: false,
        again: true,
    });
    let room = max - i64::try_from(events.len()).unwrap_or(max);
    if room <= 0 {
        return Ok((events, cursor.position));
    }
    let sql = format!(
        "SELECT {STORED}, CAST(CASE WHEN EXISTS (SELECT 1 FROM event_retries r
             WHERE r.subscription = $1 AND r.lane = d.lane AND r.parked = 0) THEN 1 ELSE 0 END AS BIGINT) AS held
         FROM event_log l JOIN event_data d ON d.seq = l.seq
         WHERE l.topic = $2 AND l.position > $3 AND l.position <= $7 AND l.slot % $4 = $5
         ORDER BY l.position LIMIT $6"
    );
    let binds = (cursor.position, cursor.parts, cursor.part, room, cursor.newest);
    let fresh =
        rows!(tx, sql, [&request.subscription, topic, binds.0, binds.1, binds.2, binds.3, binds.4], |row| {
            Claimed {
                stored: stored(row)?,
                attempt: 1,
                held: row.try_get::<i64, _>("held")? == 1,
                again: false,
            }
        });
    let full = i64::try_from(fresh.len()).unwrap_or(i64::MAX) >= room;
    let last = fresh.last().map(|event| signed(event.stored.position));
    let through = last.filter(|_| full).unwrap_or_else(|| cursor.newest.max(cursor.position));
    events.extend(fresh);
    Ok((events, through))
}
