//! Subscriptions made and forgotten, events read and set aside, lag and retention.

use std::time::Duration;

use runtime_db::Tx;
use runtime_db::sqlx::Row;

use super::rows::{STORED, among, json, lock, number, read, signed, stored, timestamp};
use super::run::{change, rows};
use crate::error::EventsError;
use crate::log::{Bounds, From, Lag, Parked, Stored, SubscriptionSpec};
use crate::memory::micros;

pub(super) async fn bounds(tx: &mut Tx, topic: &str) -> Result<Bounds, EventsError> {
    let sql = "SELECT newest, pruned FROM event_topics WHERE topic = $1";
    let found = rows!(tx, sql, [topic], |row| Bounds {
        newest: number(row.try_get::<i64, _>("newest")?),
        pruned: number(row.try_get::<i64, _>("pruned")?),
    });
    Ok(found.first().copied().unwrap_or_default())
}

pub(super) async fn read_after(
    tx: &mut Tx,
    topic: &str,
    after: u64,
    max: u32,
) -> Result<Vec<Stored>, EventsError> {
    let bounds = bounds(tx, topic).await?;
    if after < bounds.pruned {
        return Err(EventsError::Gone(bounds.pruned));
    }
    let sql = format!(
        "SELECT {STORED} FROM event_log l JOIN event_data d ON d.seq = l.seq
         WHERE l.topic = $1 AND l.position > $2 ORDER BY l.position LIMIT $3"
    );
    Ok(rows!(tx, sql, [topic, signed(after), i64::from(max)], |row| stored(row)?))
}

pub(super) async fn topic_of(tx: &mut Tx, subscription: &str) -> Result<String, EventsError> {
    let sql = "SELECT topic FROM event_cursors WHERE subscription = $1 AND part = 0";
    let mut found = rows!(tx, sql, [subscription], |row| row.try_get::<String, _>("topic")?);
    found.pop().ok_or_else(|| EventsError::NoSubscription(subscription.to_owned()))
}

pub(super) async fn subscribed_topics(tx: &mut Tx) -> Result<Vec<String>, EventsError> {
    let sql = "SELECT DISTINCT topic FROM event_cursors";
    Ok(rows!(tx, sql, [], |row| row.try_get::<String, _>("topic")?))
}

pub(super) async fn subscribe(tx: &mut Tx, spec: &SubscriptionSpec) -> Result<bool, EventsError> {
    let newest = bounds(tx, &spec.topic).await?.newest;
    let position = match spec.from {
        From::Beginning => 0,
        From::End => newest,
        From::After(position) => position.min(newest),
    };
    let mut made = 0;
    for part in 0..i64::from(spec.partitions) {
        let sql = "INSERT INTO event_cursors
            (subscription, part, parts, topic, position, handed, careful, fence, claimed_at)
            VALUES ($1, $2, $3, $4, $5, 0, 0, 0, 0) ON CONFLICT (subscription, part) DO NOTHING";
        made += change!(tx, sql, &spec.name, part, i64::from(spec.partitions), &spec.topic, signed(position));
        if made == 0 {
            break;
        }
    }
    let sql = "SELECT topic, parts FROM event_cursors WHERE subscription = $1 AND part = 0";
    let there = rows!(tx, sql, [&spec.name], |row| SubscriptionSpec {
        name: spec.name.clone(),
        topic: row.try_get("topic")?,
        partitions: number(row.try_get::<i64, _>("parts")?),
        from: spec.from,
    });
    there.first().map_or(Ok(()), |there| there.same(spec))?;
    Ok(made > 0)
}

pub(super) async fn unsubscribe(tx: &mut Tx, subscription: &str) -> Result<bool, EventsError> {
    change!(tx, "DELETE FROM event_retries WHERE subscription = $1", subscription);
    Ok(change!(tx, "DELETE FROM event_cursors WHERE subscription = $1", subscription) > 0)
}

pub(super) async fn parked(
    tx: &mut Tx,
    subscription: &str,
    tenant: Option<&str>,
    after: u64,
    max: u32,
) -> Result<Vec<Parked>, EventsError> {
    topic_of(tx, subscription).await?;
    let sql = format!(
        "SELECT {STORED}, r.attempts, r.failure FROM event_retries r
         JOIN event_log l ON l.topic = r.topic AND l.position = r.position JOIN event_data d ON d.seq = l.seq
         WHERE r.subscription = $1 AND r.parked = 1 AND (CAST($2 AS TEXT) IS NULL OR r.tenant = $2)
         AND r.position > $3 ORDER BY r.position LIMIT $4"
    );
    Ok(rows!(tx, sql, [subscription, tenant, signed(after), i64::from(max)], |row| Parked {
        stored: stored(row)?,
        attempts: number(row.try_get::<i64, _>("attempts")?),
        failure: row.try_get::<Option<String>, _>("failure")?.as_deref().map(read).transpose()?,
    }))
}

pub(super) async fn redrive(
    tx: &mut Tx,
    now: i64,
    subscription: &str,
    position: Option<u64>,
) -> Result<u64, EventsError> {
    topic_of(tx, subscription).await?;
    let sql = "UPDATE event_retries SET parked = 0, attempts = 0, due_at = $2
        WHERE subscription = $1 AND parked = 1 AND (CAST($3 AS BIGINT) IS NULL OR position = $3)";
    Ok(change!(tx, sql, subscription, now, position.map(signed)))
}

pub(super) async fn discard(tx: &mut Tx, subscription: &str, position: u64) -> Result<bool, EventsError> {
    topic_of(tx, subscription).await?;
    let sql = "DELETE FROM event_retries WHERE subscription = $1 AND position = $2 AND parked = 1";
    Ok(change!(tx, sql, subscription, signed(position)) == 1)
}

pub(super) async fn rewind(tx: &mut Tx, subscription: &str, after: u64) -> Result<(), EventsError> {
    let topic = topic_of(tx, subscription).await?;
    // Held first, so that nothing is claimed or settled meanwhile.
    let sql = format!(
        "SELECT part FROM event_cursors WHERE subscription = $1 ORDER BY part {}",
        lock(tx.dialect(), "FOR UPDATE")
    );
    rows!(tx, sql, [subscription], |row| row.try_get::<i64, _>("part")?);
    let pruned = bounds(tx, &topic).await?.pruned;
    if after < pruned {
        return Err(EventsError::Gone(pruned));
    }
    let sql = "DELETE FROM event_retries WHERE subscription = $1 AND position > $2";
    change!(tx, sql, subscription, signed(after));
    let sql = "UPDATE event_cursors SET position = CASE WHEN position > $2 THEN $2 ELSE position END,
            handed = 0, careful = 0, suspect = NULL, fence = fence + 1, worker = NULL, lease_until = NULL
        WHERE subscription = $1";
    change!(tx, sql, subscription, signed(after));
    Ok(())
}

pub(super) async fn lag(tx: &mut Tx, now: i64) -> Result<Vec<Lag>, EventsError> {
    let sql = "SELECT c.subscription, MIN(c.topic) AS topic, COUNT(*) AS parts,
            COUNT(CASE WHEN c.lease_until >= $1 THEN 1 END) AS claimed FROM event_cursors c
        GROUP BY c.subscription ORDER BY c.subscription";
    let mut found = rows!(tx, sql, [now], |row| Lag {
        subscription: row.try_get("subscription")?,
        topic: row.try_get("topic")?,
        unread: 0,
        oldest_unread: None,
        retrying: 0,
        parked: 0,
        claimed: number(row.try_get::<i64, _>("claimed")?),
        partitions: number(row.try_get::<i64, _>("parts")?),
    });
    for lag in &mut found {
        let sql = "SELECT COUNT(*) AS unread, MIN(d.published_at) AS oldest FROM event_cursors c
            JOIN event_log l ON l.topic = c.topic AND l.position > c.position AND l.slot % c.parts = c.part
            JOIN event_data d ON d.seq = l.seq WHERE c.subscription = $1";
        let unread = rows!(tx, sql, [&lag.subscription], |row| (
            number::<u64>(row.try_get::<i64, _>("unread")?),
            row.try_get::<Option<i64>, _>("oldest")?.map(timestamp),
        ));
        (lag.unread, lag.oldest_unread) = unread.first().copied().unwrap_or_default();
        let sql =
            "SELECT parked, COUNT(*) AS waiting FROM event_retries WHERE subscription = $1 GROUP BY parked";
        for (parked, waiting) in rows!(tx, sql, [&lag.subscription], |row| (
            row.try_get::<i64, _>("parked")? == 1,
            number::<u64>(row.try_get::<i64, _>("waiting")?),
        )) {
            *(if parked { &mut lag.parked } else { &mut lag.retrying }) = waiting;
        }
    }
    Ok(found)
}

pub(super) async fn prune(tx: &mut Tx, now: i64, keep: Duration, max: u32) -> Result<u64, EventsError> {
    let sql = "SELECT l.topic, l.position, l.seq FROM event_data d JOIN event_log l ON l.seq = d.seq
        WHERE d.published_at < $1
        AND l.position <= COALESCE((SELECT MIN(c.position) FROM event_cursors c WHERE c.topic = l.topic), l.position)
        AND NOT EXISTS (SELECT 1 FROM event_retries r WHERE r.topic = l.topic AND r.position = l.position)
        ORDER BY d.published_at, l.position LIMIT $2";
    let cutoff = now.saturating_sub(micros(keep));
    let old = rows!(tx, sql, [cutoff, i64::from(max)], |row| (
        row.try_get::<String, _>("topic")?,
        row.try_get::<i64, _>("position")?,
        row.try_get::<i64, _>("seq")?,
    ));
    let mut newest = std::collections::BTreeMap::new();
    for (topic, position, _) in &old {
        let pruned = newest.entry(topic.clone()).or_insert(*position);
        *pruned = (*pruned).max(*position);
    }
    for (topic, pruned) in newest {
        let sql =
            "UPDATE event_topics SET pruned = CASE WHEN pruned > $2 THEN pruned ELSE $2 END WHERE topic = $1";
        change!(tx, sql, &topic, pruned);
    }
    let seqs = json(&old.iter().map(|(_, _, seq)| *seq).collect::<Vec<_>>())?;
    let listed = among(tx.dialect(), "$1");
    change!(tx, format!("DELETE FROM event_log WHERE seq IN {listed}"), &seqs);
    Ok(change!(tx, format!("DELETE FROM event_data WHERE seq IN {listed}"), &seqs))
}
