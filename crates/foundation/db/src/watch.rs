//! How long statements take: the slow-query log and the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtime_kernel::SharedClock;
use sqlx::SqlStr;

use crate::fingerprint::fingerprint;

/// Statements since the database was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatementStats {
    /// All that were started.
    pub statements: u64,
    /// Those that ended in an error.
    pub failed: u64,
    /// Those over the slow-query threshold.
    pub slow: u64,
    /// The time they took together, waiting for rows to be taken included.
    pub time: Duration,
}

/// What every statement of one database is measured with.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) clock: SharedClock,
    pub(crate) statement_timeout: Option<Duration>,
    slow_after: Option<Duration>,
    statements: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
    micros: AtomicU64,
}

impl Watch {
    pub(crate) fn new(config: &crate::DbConfig, clock: SharedClock) -> Self {
        let some = |limit: Duration| (!limit.is_zero()).then_some(limit);
        Self {
            clock,
            statement_timeout: some(config.statement_timeout),
            slow_after: some(config.slow_query),
            statements: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn stats(&self) -> StatementStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StatementStats {
            statements: read(&self.statements),
            failed: read(&self.failed),
            slow: read(&self.slow),
            time: Duration::from_micros(read(&self.micros)),
        }
    }

    pub(crate) fn start(self: &Arc<Self>, sql: SqlStr) -> Timing {
        self.statements.fetch_add(1, Ordering::Relaxed);
        Timing { started: self.clock.now(), watch: Arc::clone(self), sql, rows: 0, failed: false }
    }
}

/// One running statement; measured when dropped, however it ended.
pub(crate) struct Timing {
    watch: Arc<Watch>,
    sql: SqlStr,
    started: Instant,
    pub(crate) rows: u64,
    pub(crate) failed: bool,
}

impl Drop for Timing {
    fn drop(&mut self) {
        let watch = &self.watch;
        let took = watch.clock.now().saturating_duration_since(self.started);
        watch.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.failed {
            watch.failed.fetch_add(1, Ordering::Relaxed);
        }
        if watch.slow_after.is_some_and(|limit| took >= limit) {
            watch.slow.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                target: "runtime_db::slow_query",
                statement = %fingerprint(self.sql.as_str()),
                elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                rows = self.rows,
                failed = self.failed,
                "slow query"
            );
        }
    }
}
