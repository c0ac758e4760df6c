//! Writing events, and giving positions to those that are committed.

use std::collections::HashSet;

use runtime_db::sqlx::Row as _;
use runtime_db::{Dialect, Tx};
use serde::Serialize;

use super::SqlLog;
use super::rows::{among, json, lock, signed};
use super::run::{change, rows};
use crate::error::EventsError;
use crate::message::{Message, slot};
use crate::publisher::Receipt;

/// The most events given positions in one transaction.
const BATCH: i64 = 10_000;

/// The most events written by one statement.
const AT_ONCE: usize = 1_000;

/// An event as a statement reads it.
#[derive(Serialize)]
struct Row<'m> {
    topic: &'m str,
    tenant: String,
    lane: Option<String>,
    slot: i64,
    source: &'m str,
    id: &'m str,
    event: String,
    context: String,
}

impl<'m> Row<'m> {
    fn of(message: &'m Message) -> Result<Self, EventsError> {
        Ok(Self {
            topic: &message.topic,
            tenant: message.tenant(),
            lane: message.lane(),
            slot: signed(slot(message)),
            source: message.event.source(),
            id: message.event.id(),
            event: message.event.to_json()?,
            context: json(&message.context)?,
        })
    }
}

/// Writes events, in their order, with one round trip for each [`AT_ONCE`] on Postgres. `now` is for databases that have no
/// clock of their own.
pub(super) async fn append(
    tx: &mut Tx,
    now: Option<i64>,
    messages: &[Message],
) -> Result<Vec<Receipt>, EventsError> {
    let mut receipts = Vec::with_capacity(messages.len());
    for messages in messages.chunks(AT_ONCE) {
        let rows = messages.iter().map(Row::of).collect::<Result<Vec<_>, _>>()?;
        let mut new = insert(tx, now, &json(&rows)?).await?;
        // Of two that are the same the first was taken.
        let receipt = |row: &Row<'_>| {
            let of = (row.topic.to_owned(), row.tenant.clone(), row.source.to_owned(), row.id.to_owned());
            if new.remove(&of) { Receipt::New } else { Receipt::Duplicate }
        };
        receipts.extend(rows.iter().map(receipt));
    }
    Ok(receipts)
}

/// Says which were not there before: topic, tenant, source and id.
async fn insert(
    tx: &mut Tx,
    now: Option<i64>,
    events: &str,
) -> Result<HashSet<(String, String, String, String)>, EventsError> {
    // The numbers follow the order of the selection.
    let sql = match tx.dialect() {
        Dialect::Sqlite => {
            "INSERT INTO event_data (topic, tenant, lane, slot, source, id, event, context, published_at)
             SELECT value ->> 'topic', value ->> 'tenant', value ->> 'lane', value ->> 'slot', value ->> 'source',
                 value ->> 'id', value ->> 'event', value ->> 'context', $2 FROM json_each($1) WHERE true ORDER BY key
             ON CONFLICT (topic, tenant, source, id) DO NOTHING RETURNING topic, tenant, source, id, seq"
        }
        Dialect::Postgres => {
            "WITH taken AS (
                 INSERT INTO event_data (topic, tenant, lane, slot, source, id, event, context, published_at)
                 SELECT topic, tenant, lane, slot, source, id, event, context,
                     COALESCE($2::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
                 FROM ROWS FROM (json_to_recordset($1::text::json) AS (topic text, tenant text, lane text,
                         slot bigint, source text, id text, event text, context text)) WITH ORDINALITY
                     AS new (topic, tenant, lane, slot, source, id, event, context, place) ORDER BY place
                 ON CONFLICT (topic, tenant, source, id) DO NOTHING RETURNING topic, tenant, source, id, seq),
             unordered AS (INSERT INTO event_unordered (topic, seq) SELECT topic, seq FROM taken)
             SELECT topic, tenant, source, id, seq FROM taken"
        }
    };
    let taken = rows!(tx, sql, [events, now], |row| (
        (row.try_get("topic")?, row.try_get("tenant")?, row.try_get("source")?, row.try_get("id")?),
        row.try_get::<i64, _>("seq")?
    ));
    if tx.dialect() == Dialect::Sqlite && !taken.is_empty() {
        let seqs: Vec<_> = taken.iter().map(|(_, seq)| *seq).collect();
        let sql = format!(
            "INSERT INTO event_unordered (topic, seq) SELECT topic, seq FROM event_data WHERE seq IN {}",
            among(Dialect::Sqlite, "$1")
        );
        change!(tx, sql, &json(&seqs)?);
    }
    Ok(taken.into_iter().map(|(of, _)| of).collect())
}

impl SqlLog {
    /// Gives positions to the events of a topic that are committed by now.
    pub(super) async fn order(&self, topic: &str) -> Result<(), EventsError> {
        loop {
            let order = async |mut tx: Tx| order(&mut tx, topic).await;
            if self.db.transaction(&self.context(), order).await? < BATCH {
                return Ok(());
            }
        }
    }
}

async fn order(tx: &mut Tx, topic: &str) -> Result<i64, EventsError> {
    let sql = "SELECT seq FROM event_unordered WHERE topic = $1 LIMIT 1";
    if rows!(tx, sql, [topic], |row| row.try_get::<i64, _>("seq")?).is_empty() {
        return Ok(0);
    }
    let sql =
        "INSERT INTO event_topics (topic, newest, pruned) VALUES ($1, 0, 0) ON CONFLICT (topic) DO NOTHING";
    change!(tx, sql, topic);
    let sql =
        format!("SELECT newest FROM event_topics WHERE topic = $1 {}", lock(tx.dialect(), "FOR UPDATE"));
    let newest = rows!(tx, sql, [topic], |row| row.try_get::<i64, _>("newest")?);
    let newest = newest.first().copied().unwrap_or_default();
    // Read under the lock by a statement of its own, so that it sees what was committed before the lock was had.
    let sql = "SELECT seq FROM event_unordered WHERE topic = $1 ORDER BY seq LIMIT $2";
    let seqs = rows!(tx, sql, [topic, BATCH], |row| row.try_get::<i64, _>("seq")?);
    let count = i64::try_from(seqs.len()).unwrap_or(i64::MAX);
    let (seqs, listed) = (json(&seqs)?, among(tx.dialect(), "$2"));
    let sql = format!(
        "INSERT INTO event_log (topic, position, seq, slot)
         SELECT topic, $3 + row_number() OVER (ORDER BY seq), seq, slot FROM event_data
         WHERE topic = $1 AND seq IN {listed}"
    );
    change!(tx, sql, topic, &seqs, newest);
    let sql = format!("DELETE FROM event_unordered WHERE topic = $1 AND seq IN {listed}");
    change!(tx, sql, topic, &seqs);
    change!(tx, "UPDATE event_topics SET newest = $2 WHERE topic = $1", topic, newest + count);
    Ok(count)
}
