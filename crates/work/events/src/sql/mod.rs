//! The event log in a database: one implementation for SQLite and Postgres, in plain statements both understand.
//!
//! An event is written in two steps. Publishing writes it without a position, so that it can be part of any transaction
//! and no publisher waits for another. Whoever reads gives positions to what has been committed by then, under the
//! topic's lock. A transaction that commits later gets later positions, so no reader ever passes an event by; and an
//! event published after another had committed was numbered by the database after it, so causes come before effects.

mod append;
mod claim;
mod manage;
mod rows;
mod run;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::Row;
use runtime_db::{Database, Dialect, Tx};
use runtime_kernel::{Context, Source};
use tokio::sync::Notify;

use self::run::rows;
use crate::error::EventsError;
use crate::log::{
    Bounds, Claim, ClaimRequest, EventLog, Lag, Lease, Parked, Settled, Stored, SubscriptionSpec,
};
use crate::message::Message;
use crate::publisher::{Publisher, Receipt};

/// The event log in the database a service has anyway, so that publishing can be part of its transactions.
///
/// Time comes from the database: Postgres is asked for it in each transaction; SQLite lives on this machine, so
/// its time is this process's clock.
#[derive(Clone, Debug)]
pub struct SqlLog {
    db: Database,
    rung: Arc<Notify>,
}

impl SqlLog {
    /// The log of this database. Its tables come with [`migrations`](crate::migrations).
    pub fn new(db: Database) -> Self {
        Self { db, rung: Arc::default() }
    }

    /// Publishes inside a transaction of the caller's: the events exist when, and only when, it commits.
    ///
    /// Consumers of this process are rung at once and find the events by polling when the commit comes later than that.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_in(&self, tx: &mut Tx, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let now = self.now(tx).await?;
        let receipts = append::append(tx, now, messages).await?;
        self.rung.notify_waiters();
        Ok(receipts)
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    async fn now(&self, tx: &mut Tx) -> Result<i64, EventsError> {
        if tx.dialect() == Dialect::Sqlite {
            return Ok(self.db.clock().utc().as_microsecond());
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now";
        let now = rows!(tx, sql, [], |row| row.try_get::<i64, _>("now")?);
        now.first().copied().ok_or_else(|| EventsError::Corrupt("the database has no time".to_owned()))
    }
}

#[async_trait]
impl Publisher for SqlLog {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let publish = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            append::append(&mut tx, now, messages).await
        };
        let receipts = self.db.transaction(&self.context(), publish).await?;
        self.rung.notify_waiters();
        Ok(receipts)
    }
}

#[async_trait]
impl EventLog for SqlLog {
    async fn read(&self, topic: &str, after: u64, max: u32) -> Result<Vec<Stored>, EventsError> {
        self.order(topic).await?;
        let read = async |mut tx: Tx| manage::read_after(&mut tx, topic, after, max).await;
        self.db.transaction(&self.context(), read).await
    }

    async fn bounds(&self, topic: &str) -> Result<Bounds, EventsError> {
        self.order(topic).await?;
        let read = async |mut tx: Tx| manage::bounds(&mut tx, topic).await;
        self.db.transaction(&self.context(), read).await
    }

    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<bool, EventsError> {
        self.order(&spec.topic).await?;
        let make = async |mut tx: Tx| manage::subscribe(&mut tx, spec).await;
        self.db.transaction(&self.context(), make).await
    }

    async fn unsubscribe(&self, subscription: &str) -> Result<bool, EventsError> {
        let forget = async |mut tx: Tx| manage::unsubscribe(&mut tx, subscription).await;
        self.db.transaction(&self.context(), forget).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, EventsError> {
        let find = async |mut tx: Tx| manage::topic_of(&mut tx, &request.subscription).await;
        let topic = self.db.transaction(&self.context(), find).await?;
        self.order(&topic).await?;
        let claim = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            claim::claim(&mut tx, now, &topic, request).await
        };
        self.db.transaction(&self.context(), claim).await
    }

    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, EventsError> {
        let renew = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            settle::renew(&mut tx, now, lease, until).await
        };
        self.db.transaction(&self.context(), renew).await
    }

    async fn settle(&self, claim: &Claim, settled: &[Settled]) -> Result<bool, EventsError> {
        let settle = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            settle::settle(&mut tx, now, claim, settled).await
        };
        self.db.transaction(&self.context(), settle).await
    }

    async fn parked(
        &self,
        subscription: &str,
        tenant: Option<&str>,
        after: u64,
        max: u32,
    ) -> Result<Vec<Parked>, EventsError> {
        let list = async |mut tx: Tx| manage::parked(&mut tx, subscription, tenant, after, max).await;
        self.db.transaction(&self.context(), list).await
    }

    async fn redrive(&self, subscription: &str, position: Option<u64>) -> Result<u64, EventsError> {
        let redrive = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            manage::redrive(&mut tx, now, subscription, position).await
        };
        let count = self.db.transaction(&self.context(), redrive).await?;
        self.rung.notify_waiters();
        Ok(count)
    }

    async fn discard(&self, subscription: &str, position: u64) -> Result<bool, EventsError> {
        let discard = async |mut tx: Tx| manage::discard(&mut tx, subscription, position).await;
        self.db.transaction(&self.context(), discard).await
    }

    async fn lag(&self) -> Result<Vec<Lag>, EventsError> {
        let topics = async |mut tx: Tx| manage::subscribed_topics(&mut tx).await;
        for topic in self.db.transaction(&self.context(), topics).await? {
            self.order(&topic).await?;
        }
        let lag = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            manage::lag(&mut tx, now).await
        };
        self.db.transaction(&self.context(), lag).await
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, EventsError> {
        let prune = async |mut tx: Tx| {
            let now = self.now(&mut tx).await?;
            manage::prune(&mut tx, now, keep, max).await
        };
        self.db.transaction(&self.context(), prune).await
    }

    fn rung(&self) -> &Notify {
        &self.rung
    }
}
