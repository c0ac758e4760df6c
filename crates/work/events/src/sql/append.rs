//! Writing events, and giving positions to those that are committed.

use runtime_db::sqlx::Row;
use runtime_db::{Dialect, Tx};

use super::SqlLog;
use super::rows::{among, json, lock, signed};
use super::run::{change, rows};
use crate::error::EventsError;
use crate::message::{Message, slot};
use crate::publisher::Receipt;

/// The most events given positions in one transaction.
const BATCH: i64 = 10_000;

const INSERT: &str = "INSERT INTO event_data
    (topic, tenant, lane, slot, source, id, event, context, published_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (topic, tenant, source, id) DO NOTHING RETURNING seq";

pub(super) async fn append(tx: &mut Tx, now: i64, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
    let mut receipts = Vec::with_capacity(messages.len());
    for message in messages {
        let sql = match tx.dialect() {
            Dialect::Sqlite => INSERT.to_owned(),
            // One round trip instead of two.
            Dialect::Postgres => format!(
                "WITH new AS ({INSERT}) INSERT INTO event_unordered (topic, seq) SELECT $1, seq FROM new RETURNING seq"
            ),
        };
        let (event, context) = (message.event.to_json()?, json(&message.context)?);
        let slot = signed(slot(message));
        let binds = (&message.topic, message.tenant(), message.lane());
        let seq = rows!(
            tx,
            sql,
            [
                binds.0,
                &binds.1,
                &binds.2,
                slot,
                message.event.source(),
                message.event.id(),
                &event,
                &context,
                now
            ],
            |row| row.try_get::<i64, _>("seq")?
        );
        let Some(seq) = seq.first() else {
            receipts.push(Receipt::Duplicate);
            continue;
        };
        if tx.dialect() == Dialect::Sqlite {
            change!(tx, "INSERT INTO event_unordered (topic, seq) VALUES ($1, $2)", &message.topic, seq);
        }
        receipts.push(Receipt::New);
    }
    Ok(receipts)
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
