//! The connection everybody shares, to whatever server has to be found.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

/// Opened when it is first needed, and again once it did not answer.
pub(crate) struct Shared {
    patience: Duration,
    found: RwLock<Option<MultiplexedConnection>>,
    /// One caller opens it for all.
    finding: tokio::sync::Mutex<()>,
}

impl Shared {
    /// None yet; callers wait so long for it.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, found: RwLock::default(), finding: tokio::sync::Mutex::default() }
    }

    /// The connection there is, or else the one that this opens.
    pub(crate) async fn get(
        &self,
        open: impl AsyncFnOnce() -> RedisResult<MultiplexedConnection>,
    ) -> RedisResult<MultiplexedConnection> {
        if let Some(found) = self.found() {
            return Ok(found);
        }
        // Boxed, for the futures of those who find one there are smaller without.
        let find = Box::pin(async {
            let _turn = self.finding.lock().await;
            if let Some(found) = self.found() {
                return Ok(found);
            }
            let found = open().await?;
            *self.found.write().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
            Ok(found)
        });
        tokio::time::timeout(self.patience, find).await.unwrap_or_else(|_| Err(late()))
    }

    /// The next caller opens another. A failure is not kept either: whoever comes later tries for itself.
    pub(crate) fn forget(&self) {
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn found(&self) -> Option<MultiplexedConnection> {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn late() -> redis::RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
