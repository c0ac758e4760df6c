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
use runtime_db::{Database, Dialect, Tx};
use runtime_kernel::{Context, Source};
use tokio::sync::Notify;

use crate::error::EventsError;
use crate::log::{
    Bounds, Claim, ClaimRequest, EventLog, Lag, Lease, Parked, Settled, Stored, SubscriptionSpec,
};
use crate::message::Message;
use crate::metrics::EventMetrics;
use crate::publisher::{Publisher, Receipt};

/// The event log in the database a service has anyway, so that publishing can be part of its transactions.
///
/// Time comes from the database: Postgres is asked for it in each transaction; SQLite lives on this machine, so
/// its time is this process's clock.
#[derive(Clone, Debug)]
pub struct SqlLog {
    db: Database,
    rung: Arc<Notify>,
    metrics: EventMetrics,
    #[cfg(feature = "postgres")]
    bell: runtime_db::Bell,
}

impl SqlLog {
    /// The log of this database. Its tables come with [`migrations`](crate::migrations).
    pub fn new(db: Database) -> Self {
        Self {
            db,
            rung: Arc::default(),
            metrics: EventMetrics::default(),
            #[cfg(feature = "postgres")]
            bell: runtime_db::Bell::new("runtime_events"),
        }
    }

    /// Counts what is published by itself; what is part of a caller's transaction may yet be undone and is not counted.
    #[must_use]
    pub fn with_metrics(mut self, metrics: EventMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Publishes inside a transaction of the caller's: the events exist when, and only when, it commits. On Postgres that is
    /// one round trip for up to 1 000 of them.
    ///
    /// Consumers are woken once it has been committed: those of this process at once, on Postgres those of others too.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_in(&self, tx: &mut Tx, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let now = (tx.dialect() == Dialect::Sqlite).then(|| self.db.clock().utc().as_microsecond());
        let receipts = append::append(tx, now, messages).await?;
        if receipts.contains(&Receipt::New) {
            let log = self.clone();
            tx.on_commit(move || log.ring());
        }
        Ok(receipts)
    }

    /// Wakes consumers, here and in other processes.
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
}

#[async_trait]
impl Publisher for SqlLog {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let publish = async |mut tx: Tx| self.publish_in(&mut tx, messages).await;
        let receipts = self.db.transaction(&self.context(), publish).await?;
        self.metrics.published(&receipts);
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
            let now = tx.time().await?.as_microsecond();
            claim::claim(&mut tx, now, &topic, request).await
        };
        self.db.transaction(&self.context(), claim).await
    }

    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, EventsError> {
        let renew = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
            settle::renew(&mut tx, now, lease, until).await
        };
        self.db.transaction(&self.context(), renew).await
    }

    async fn settle(&self, claim: &Claim, settled: &[Settled]) -> Result<bool, EventsError> {
        let settle = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
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
            let now = tx.time().await?.as_microsecond();
            manage::redrive(&mut tx, now, subscription, position).await
        };
        let count = self.db.transaction(&self.context(), redrive).await?;
        self.ring();
        Ok(count)
    }

    async fn discard(&self, subscription: &str, position: u64) -> Result<bool, EventsError> {
        let discard = async |mut tx: Tx| manage::discard(&mut tx, subscription, position).await;
        self.db.transaction(&self.context(), discard).await
    }

    async fn rewind(&self, subscription: &str, after: u64) -> Result<(), EventsError> {
        let rewind = async |mut tx: Tx| manage::rewind(&mut tx, subscription, after).await;
        self.db.transaction(&self.context(), rewind).await?;
        self.rung.notify_waiters();
        Ok(())
    }

    async fn lag(&self) -> Result<Vec<Lag>, EventsError> {
        let topics = async |mut tx: Tx| manage::subscribed_topics(&mut tx).await;
        for topic in self.db.transaction(&self.context(), topics).await? {
            self.order(&topic).await?;
        }
        let lag = async |mut tx: Tx| {
            let now = tx.time().await?.as_microsecond();
            manage::lag(&mut tx, now).await
        };
        self.db.transaction(&self.context(), lag).await
    }

    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, EventsError> {
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
            self.bell.hear(&self.db).await;
            // One of this process hears; all are meant.
            return self.rung.notify_waiters();
        }
        std::future::pending::<()>().await;
    }
}
