//! Wakes other processes through Postgres' `NOTIFY`.
//!
//! A transaction that notifies takes a lock all of them share while it commits, so notifying in each writing transaction
//! would make them queue up behind each other. Here it is a statement of its own, sent by one task at most once per
//! [`PAUSE`], whatever is written meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Mutex;

use crate::database::Database;

const PAUSE: Duration = Duration::from_millis(5);

/// How long a lost listener waits before it connects again; polling goes on meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

const SILENT: u8 = 0;
const RINGING: u8 = 1;
const RING_AGAIN: u8 = 2;

/// A channel processes wake each other by: ring it after a commit ([`Tx::on_commit`](crate::Tx::on_commit)), hear it
/// where work is waited for. What is not heard is found by polling, which it replaces only most of the time. Cheap to
/// clone; all clones are one bell. On SQLite, which has one process, it is silent.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channel: &'static str,
    state: AtomicU8,
    listener: Mutex<Option<PgListener>>,
}

impl Bell {
    /// A bell on a channel.
    pub fn new(channel: &'static str) -> Self {
        Self(Arc::new(Inner { channel, state: AtomicU8::new(SILENT), listener: Mutex::default() }))
    }

    /// Rings soon, in a task of its own; outside a Tokio runtime it does not.
    pub fn ring(&self, db: &Database) {
        if self.0.state.swap(RING_AGAIN, Ordering::AcqRel) != SILENT {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.0.state.store(SILENT, Ordering::Release);
            return;
        };
        let (bell, db) = (Arc::clone(&self.0), db.clone());
        runtime.spawn(async move {
            loop {
                bell.state.store(RINGING, Ordering::Release);
                let Some(pool) = db.postgres() else { return };
                if let Err(error) =
                    sqlx::query("SELECT pg_notify($1, '')").bind(bell.channel).execute(pool).await
                {
                    tracing::debug!(%error, "other processes could not be woken");
                }
                db.clock().sleep(PAUSE).await;
                let quiet = bell.state.compare_exchange(RINGING, SILENT, Ordering::AcqRel, Ordering::Acquire);
                if quiet.is_ok() {
                    return;
                }
            }
        });
    }

    /// Waits until it is heard, or until something may have been missed: on having subscribed, and on having lost the
    /// connection. Not cancel-safe: a ring may be lost, which polling makes good.
    pub async fn hear(&self, db: &Database) {
        let mut slot = self.0.listener.lock().await;
        let heard = match slot.as_mut() {
            None => match db.postgres() {
                Some(pool) => subscribe(pool, self.0.channel).await.map(|listener| *slot = Some(listener)),
                None => std::future::pending().await,
            },
            Some(listener) => match listener.try_recv().await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(sqlx::Error::PoolClosed),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "not listening for other processes");
            *slot = None;
            db.clock().sleep(AGAIN).await;
        }
    }
}

async fn subscribe(pool: &sqlx::PgPool, channel: &str) -> Result<PgListener, sqlx::Error> {
    // A connection beside the pool's: it is held for as long as the bell lives, and a pool that is being closed waits for
    // each of its own.
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}
