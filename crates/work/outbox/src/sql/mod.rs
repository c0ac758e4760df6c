//! The outbox in a database: one implementation for SQLite and Postgres, in plain statements both understand.
//!
//! What waits is found by its state, never by a cursor over its numbers: a transaction that commits late is found when it
//! has committed, whatever numbers were sent meanwhile. All messages of a key are in one shard, and a claim is a lease on
//! whole shards, so no key is ever in two hands. Whoever changes what waits behind what holds the shard's row locked.

mod claim;
mod inbox;
mod manage;
mod run;
mod settle;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::{Database, Dialect, Tx};
use runtime_events::Message;
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Context, Source};
use serde::Serialize;
use tokio::sync::Notify;

pub use self::inbox::SqlInbox;
use self::run::change;
use crate::error::OutboxError;
use crate::row::{lane, shard, texts};
use crate::store::{Channel, ChannelStats, Claim, ClaimRequest, Lease, OutboxStore, Parked, Settled};

/// The outbox in the database a service has anyway, so that adding is part of its transactions. Cheap to clone.
///
/// Time comes from the database: Postgres is asked for it in each transaction; SQLite lives on this machine, so its
/// time is this process's clock.
#[derive(Clone)]
pub struct SqlOutbox {
    db: Database,
    channel: Channel,
    max_message: usize,
    keep_sent: bool,
    rung: Arc<Notify>,
    /// Channels whose shards are known to be there.
    made: Arc<Mutex<HashSet<Channel>>>,
    #[cfg(feature = "postgres")]
    bell: runtime_db::Bell,
}

impl SqlOutbox {
    /// The channel `default` of this database's outbox. Its tables come with [`migrations`](crate::migrations).
    pub fn new(db: Database) -> Self {
        Self {
            db,
            channel: Channel::default(),
            max_message: ByteSize::mib(1).as_usize(),
            keep_sent: true,
            rung: Arc::default(),
            made: Arc::default(),
            #[cfg(feature = "postgres")]
            bell: runtime_db::Bell::new("runtime_outbox"),
        }
    }

    /// The same outbox, adding to another channel.
    #[must_use]
    pub fn channel(&self, channel: Channel) -> Self {
        Self { channel, ..self.clone() }
    }

    /// Refuses messages whose event is larger as JSON. 1 MiB unless told.
    #[must_use]
    pub fn with_max_message(mut self, limit: ByteSize) -> Self {
        self.max_message = limit.as_usize();
        self
    }

    /// Whether sent messages are kept until they are pruned, or deleted when they are sent. Kept unless told.
    #[must_use]
    pub fn with_kept_sent(mut self, keep: bool) -> Self {
        self.keep_sent = keep;
        self
    }

    /// Adds a message inside a transaction of the caller's: it is sent when, and only when, that commits. One round trip.
    ///
    /// Relays are told once the transaction has been committed.
    ///
    /// # Errors
    /// [`OutboxError::TooLarge`], and what the database brings.
    pub async fn add_in(&self, tx: &mut Tx, message: Message) -> Result<(), OutboxError> {
        self.add_all_in(tx, std::slice::from_ref(&message)).await
    }

    /// As [`add_in`](Self::add_in) for many, in their order, in one round trip as well.
    ///
    /// # Errors
    /// As [`add_in`](Self::add_in).
    pub async fn add_all_in(&self, tx: &mut Tx, messages: &[Message]) -> Result<(), OutboxError> {
        self.append(tx, &self.channel, messages).await
    }

    async fn append(&self, tx: &mut Tx, channel: &Channel, messages: &[Message]) -> Result<(), OutboxError> {
        if messages.is_empty() {
            return Ok(());
        }
        let new = messages.iter().map(|message| New::of(message, self.max_message));
        let new = json(&new.collect::<Result<Vec<_>, _>>()?)?;
        let sql = match tx.dialect() {
            Dialect::Sqlite => {
                "INSERT INTO outbox_messages (channel, shard, tenant, lane, topic, event, context, created_at)
                 SELECT $1, value ->> 'shard', value ->> 'tenant', value ->> 'lane', value ->> 'topic',
                     value ->> 'event', value ->> 'context', $3 FROM json_each($2) ORDER BY key"
            }
            Dialect::Postgres => {
                "INSERT INTO outbox_messages (channel, shard, tenant, lane, topic, event, context, created_at)
                 SELECT $1, shard, tenant, lane, topic, event, context,
                     COALESCE($3::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
                 FROM ROWS FROM (json_to_recordset($2::text::json) AS
                     (shard bigint, tenant text, lane text, topic text, event text, context text))
                     WITH ORDINALITY AS new (shard, tenant, lane, topic, event, context, place) ORDER BY place"
            }
        };
        let at = (tx.dialect() == Dialect::Sqlite).then(|| self.db.clock().utc().as_microsecond());
        change!(tx, sql, channel.as_str(), &new, at);
        let outbox = self.clone();
        tx.on_commit(move || outbox.ring());
        Ok(())
    }

    fn ring(&self) {
        self.rung.notify_waiters();
        #[cfg(feature = "postgres")]
        if self.db.dialect() == Dialect::Postgres {
            self.bell.ring(&self.db);
        }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    /// Makes the shards of a channel, once per process.
    async fn make(&self, tx: &mut Tx, channel: &Channel) -> Result<(), OutboxError> {
        if self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(channel) {
            return Ok(());
        }
        let shards = json(&(0..crate::store::SHARDS).collect::<Vec<_>>())?;
        let sql = format!(
            "INSERT INTO outbox_shards (channel, shard) SELECT $1, n FROM {} WHERE true
             ON CONFLICT (channel, shard) DO NOTHING",
            listed(tx.dialect(), "$2")
        );
        change!(tx, sql, channel.as_str(), &shards);
        let (made, channel) = (Arc::clone(&self.made), channel.clone());
        tx.on_commit(move || {
            made.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
        });
        Ok(())
    }
}

/// A message on its way into a row.
#[derive(Serialize)]
struct New {
    shard: u32,
    tenant: String,
    lane: Option<String>,
    topic: String,
    event: String,
    context: String,
}

impl New {
    fn of(message: &Message, limit: usize) -> Result<Self, OutboxError> {
        let (event, context) = texts(message, limit)?;
        let (shard, tenant, lane) = (shard(message), message.tenant(), lane(message));
        Ok(Self { shard, tenant, lane, topic: message.topic.clone(), event, context })
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, OutboxError> {
    serde_json::to_string(value).map_err(|error| OutboxError::invalid("message", error.to_string()))
}

/// A table of numbers `n` given as one JSON parameter.
fn listed(dialect: Dialect, parameter: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("(SELECT value AS n FROM json_each({parameter})) l"),
        Dialect::Postgres => {
            format!("(SELECT t::bigint AS n FROM json_array_elements_text(({parameter})::text::json) t) l")
        }
    }
}

/// A table of texts `t` given as one JSON parameter.
fn listed_text(dialect: Dialect, parameter: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("(SELECT value AS t FROM json_each({parameter})) l"),
        Dialect::Postgres => {
            format!("(SELECT t FROM json_array_elements_text(({parameter})::text::json) t) l")
        }
    }
}

/// A lock on the rows read, where the database has such.
fn lock(dialect: Dialect, how: &'static str) -> &'static str {
    if dialect == Dialect::Postgres { how } else { "" }
}

fn number<N: TryFrom<i64> + Default>(value: i64) -> N {
    N::try_from(value).unwrap_or_default()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[async_trait]
impl OutboxStore for SqlOutbox {
    async fn add(&self, channel: &Channel, messages: &[Message]) -> Result<(), OutboxError> {
        let add = async |mut tx: Tx| self.append(&mut tx, channel, messages).await;
        self.db.transaction(&self.context(), add).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, OutboxError> {
        let claim = async |mut tx: Tx| {
            self.make(&mut tx, &request.channel).await?;
            let now = tx.time().await?.as_microsecond();
            claim::claim(&mut tx, now, request).await
        };
        self.db.transaction(&self.context(), claim).await
    }

    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, OutboxError> {
        let renew = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
            settle::renew(&mut tx, now, lease, until).await
        };
        self.db.transaction(&self.context(), renew).await
    }

    async fn settle(&self, lease: &Lease, settled: &[Settled]) -> Result<bool, OutboxError> {
        let settle = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
            settle::settle(&mut tx, now, lease, settled, self.keep_sent).await
        };
        self.db.transaction(&self.context(), settle).await
    }

    async fn parked(
        &self,
        channel: &Channel,
        tenant: Option<&str>,
        after: u64,
        max: u32,
    ) -> Result<Vec<Parked>, OutboxError> {
        let list = async |mut tx: Tx| manage::parked(&mut tx, channel, tenant, after, max).await;
        self.db.transaction(&self.context(), list).await
    }

    async fn redrive(
        &self,
        channel: &Channel,
        tenant: Option<&str>,
        seq: Option<u64>,
    ) -> Result<u64, OutboxError> {
        let redrive = async |mut tx: Tx| manage::redrive(&mut tx, channel, tenant, seq).await;
        let count = self.db.transaction(&self.context(), redrive).await?;
        self.ring();
        Ok(count)
    }

    async fn discard(&self, channel: &Channel, tenant: Option<&str>, seq: u64) -> Result<bool, OutboxError> {
        let discard = async |mut tx: Tx| manage::discard(&mut tx, channel, tenant, seq).await;
        let found = self.db.transaction(&self.context(), discard).await?;
        self.ring();
        Ok(found)
    }

    async fn stats(&self) -> Result<Vec<ChannelStats>, OutboxError> {
        let count = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
            manage::stats(&mut tx, now).await
        };
        self.db.transaction(&self.context(), count).await
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, OutboxError> {
        let prune = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
            manage::prune(&mut tx, now, keep, max).await
        };
        self.db.transaction(&self.context(), prune).await
    }

    fn rung(&self) -> &Notify {
        &self.rung
    }

    async fn announced(&self) {
        #[cfg(feature = "postgres")]
        if self.db.dialect() == Dialect::Postgres {
            return self.bell.hear(&self.db).await;
        }
        std::future::pending::<()>().await;
    }
}

impl std::fmt::Debug for SqlOutbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlOutbox")
            .field("db", &self.db)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}
