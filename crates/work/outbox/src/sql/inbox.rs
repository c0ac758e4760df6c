//! The inbox in a database: what was seen is remembered in the transaction of what it caused.

use std::time::Duration;

use async_trait::async_trait;
use runtime_db::{Database, Dialect, Tx};
use runtime_events::CloudEvent;
use runtime_kernel::{Context, Source};

use super::run::change;
use crate::error::OutboxError;
use crate::inbox::{InboxStore, Once, check, tenant};
use crate::memory::micros;

/// An inbox in the database a consumer has anyway. Its tables come with [`migrations`](crate::migrations).
#[derive(Clone, Debug)]
pub struct SqlInbox {
    db: Database,
}

impl SqlInbox {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Remembers a message inside the transaction of what is done about it: both are kept, or neither. Only when it says
    /// [`Once::Fresh`] is anything to be done.
    ///
    /// Of several transactions that ask about one message at once, all but the first wait until that has ended.
    ///
    /// # Errors
    /// [`OutboxError::Invalid`] for a consumer that is no name and an id that is empty or over 1024 bytes.
    pub async fn once_in(
        &self,
        tx: &mut Tx,
        context: &Context,
        consumer: &str,
        message_id: &str,
    ) -> Result<Once, OutboxError> {
        check(consumer, message_id)?;
        let at = match tx.dialect() {
            Dialect::Sqlite => Some(self.db.clock().utc().as_microsecond()),
            Dialect::Postgres => None,
        };
        let time = match tx.dialect() {
            Dialect::Sqlite => "$4",
            Dialect::Postgres => {
                "COALESCE($4::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
            }
        };
        let sql = format!(
            "INSERT INTO inbox_messages (consumer, tenant, message_id, seen_at) VALUES ($1, $2, $3, {time})
             ON CONFLICT (consumer, tenant, message_id) DO NOTHING"
        );
        let fresh = change!(tx, sql, consumer, tenant(context), message_id, at) == 1;
        Ok(if fresh { Once::Fresh } else { Once::Seen })
    }

    /// As [`once_in`](Self::once_in) for an event, whose source and id together are its name.
    ///
    /// # Errors
    /// As [`once_in`](Self::once_in).
    pub async fn event_once_in(
        &self,
        tx: &mut Tx,
        context: &Context,
        consumer: &str,
        event: &CloudEvent,
    ) -> Result<Once, OutboxError> {
        // Neither part has a line break: the envelope forbids control characters.
        self.once_in(tx, context, consumer, &format!("{}\n{}", event.source(), event.id())).await
    }
}

#[async_trait]
impl InboxStore for SqlInbox {
    async fn mark(&self, context: &Context, consumer: &str, message_id: &str) -> Result<Once, OutboxError> {
        let mark = async |mut tx: Tx| self.once_in(&mut tx, context, consumer, message_id).await;
        self.db.transaction(context, mark).await
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, OutboxError> {
        let context = Context::new(Source::Internal, &**self.db.clock());
        let prune = async |mut tx: Tx| {
            let tx = &mut tx;
            let before = tx.time().await?.as_microsecond().saturating_sub(micros(keep));
            let sql = "DELETE FROM inbox_messages WHERE (consumer, tenant, message_id) IN
                (SELECT consumer, tenant, message_id FROM inbox_messages WHERE seen_at < $1
                 ORDER BY seen_at LIMIT $2)";
            Ok(change!(tx, sql, before, i64::from(max)))
        };
        self.db.transaction(&context, prune).await
    }
}
