//! Tells workers of other processes that sagas are due, through Postgres' `NOTIFY`.
//!
//! A transaction that notifies takes a lock all of them share while it commits, so notifying in each writing
//! transaction would make them queue up behind each other. Here it is a statement of its own, sent by one task at most
//! once per [`PAUSE`], whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use runtime_db::sqlx::postgres::PgListener;
use runtime_db::{Database, sqlx};
use tokio::sync::Mutex;

const CHANNEL: &str = "runtime_saga";
const PAUSE: Duration = Duration::from_millis(5);

/// How long a lost listener waits before it connects again; polling goes on meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

const SILENT: u8 = 0;
const RINGING: u8 = 1;
const RING_AGAIN: u8 = 2;

/// Rings and hears.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: AtomicU8,
    listener: Mutex<Option<PgListener>>,
}

impl Bell {
    /// Rings soon. What cannot be told is found by polling.
    pub(super) fn ring(self: &Arc<Self>, db: &Database) {
        if self.state.swap(RING_AGAIN, Ordering::AcqRel) != SILENT {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.state.store(SILENT, Ordering::Release);
            return;
        };
        let (bell, db) = (Arc::clone(self), db.clone());
        runtime.spawn(async move {
            loop {
                bell.state.store(RINGING, Ordering::Release);
                let Some(pool) = db.postgres() else { return };
                if let Err(error) = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(pool).await
                {
                    tracing::debug!(%error, "other workers could not be told of due sagas");
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
    pub(super) async fn hear(&self, db: &Database) {
        let mut slot = self.listener.lock().await;
        let heard = match slot.as_mut() {
            None => match db.postgres() {
                Some(pool) => subscribe(pool).await.map(|listener| *slot = Some(listener)),
                None => std::future::pending().await,
            },
            Some(listener) => match listener.try_recv().await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(sqlx::Error::PoolClosed),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "not listening for due sagas");
            *slot = None;
            db.clock().sleep(AGAIN).await;
        }
    }
}

async fn subscribe(pool: &sqlx::PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
