//! The handle that records events.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime_kernel::{SharedClock, uuid_v7};
use runtime_telemetry::Metrics;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::AuditMetrics;
use crate::task::{AuditTask, Sink};
use crate::{AuditConfig, AuditError, AuditEvent, AuditWriter, Severity, redact};

/// Records events. Cloning shares it.
#[derive(Clone)]
pub struct Audit(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) sink: Sink,
    queue: Option<mpsc::Sender<Queued>>,
    pub(crate) clock: SharedClock,
    pub(crate) config: AuditConfig,
    pub(crate) metrics: AuditMetrics,
    /// Dropped and not yet reported by an event.
    pub(crate) unreported: AtomicU64,
    dropped: AtomicU64,
    logged: AtomicBool,
}

/// An event on its way, with whoever waits for it.
pub(crate) struct Queued {
    pub(crate) event: AuditEvent,
    pub(crate) done: Option<oneshot::Sender<Result<(), AuditError>>>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("writer", &self.0.sink.writer)
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// A handle and the task that writes what it queues. Until [`AuditTask::run`] runs, events wait in the queue.
    ///
    /// # Errors
    /// [`AuditError::Setting`].
    pub fn queued(
        writer: impl AuditWriter,
        config: AuditConfig,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Result<(Self, AuditTask), AuditError> {
        config.check()?;
        let (queue, events) = mpsc::channel(config.queue);
        let audit = Self::over(writer, Some(queue), config, clock, metrics)?;
        let task = AuditTask::new(audit.clone(), events);
        Ok((audit, task))
    }

    /// A handle without a queue: every event is written and durable before [`Audit::record`] returns. For command
    /// lines and tests.
    ///
    /// # Errors
    /// [`AuditError::Setting`].
    pub fn direct(writer: impl AuditWriter, clock: SharedClock) -> Result<Self, AuditError> {
        Self::over(writer, None, AuditConfig::default(), clock, &Metrics::new())
    }

    fn over(
        writer: impl AuditWriter,
        queue: Option<mpsc::Sender<Queued>>,
        config: AuditConfig,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Result<Self, AuditError> {
        config.check()?;
        let metrics = AuditMetrics::new(metrics).map_err(|_| AuditError::Setting {
            field: "metrics",
            message: "the names are taken by other metrics",
        })?;
        let sink = Sink::new(Arc::new(writer), &config, Arc::clone(&clock));
        let (unreported, dropped, logged) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { sink, queue, clock, config, metrics, unreported, dropped, logged })))
    }

    /// Records an event: gives it id and time, redacts it, and hands it on.
    ///
    /// What is not critical never waits: it is queued, or, when the queue is full, dropped, counted, and the number
    /// reported by an event `audit.dropped` as soon as there is room. A critical event is durable when this returns
    /// `Ok`. Events are written in the order they were queued.
    ///
    /// Dropping the future while a critical event is under way leaves open whether it is written.
    ///
    /// # Errors
    /// Only for what waits: [`AuditError::Write`] when every attempt failed, [`AuditError::Timeout`] after
    /// `timeout` in all. The caller decides whether what is not on record may go on.
    pub async fn record(&self, event: AuditEvent) -> Result<(), AuditError> {
        let event = self.stamp(event);
        let Some(queue) = self.0.queue.as_ref().filter(|queue| !queue.is_closed()) else {
            return self.write_through(event).await;
        };
        if event.severity != Severity::Critical {
            match queue.try_send(Queued { event, done: None }) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.lost(1, "the queue is full");
                    return Ok(());
                }
                // The task has ended: the process is going down and nothing else needs the time.
                Err(mpsc::error::TrySendError::Closed(queued)) => {
                    return self.write_through(queued.event).await;
                }
            }
        }
        let (done, written) = oneshot::channel();
        let wait = async {
            match queue.send(Queued { event, done: Some(done) }).await {
                Ok(()) => written.await.unwrap_or_else(|_| {
                    let (writer, why) = (self.0.sink.writer.name(), "the task that writes ended".to_owned());
                    Err(AuditError::Write { writer, why })
                }),
                Err(mpsc::error::SendError(queued)) => self.write_through(queued.event).await,
            }
        };
        tokio::select! {
            biased;
            result = wait => result,
            () = self.0.clock.sleep(self.0.config.timeout) => Err(AuditError::Timeout),
        }
    }

    /// How many events were not written since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    async fn write_through(&self, event: AuditEvent) -> Result<(), AuditError> {
        let severity = event.severity;
        self.0.sink.write(&[event], true).await?;
        self.0.metrics.written(severity);
        Ok(())
    }

    pub(crate) fn stamp(&self, mut event: AuditEvent) -> AuditEvent {
        event.id = uuid_v7(&*self.0.clock);
        event.ts = self.0.clock.utc();
        redact::clean(&mut event);
        event
    }

    pub(crate) fn lost(&self, count: u64, why: &str) {
        self.0.unreported.fetch_add(count, Ordering::Relaxed);
        self.0.dropped.fetch_add(count, Ordering::Relaxed);
        self.0.metrics.dropped(count);
        // Once until the number has been reported: the log must not drown where the audit does.
        if !self.0.logged.swap(true, Ordering::Relaxed) {
            tracing::error!(target: "audit", why, "audit events are being dropped");
        }
    }

    pub(crate) fn reported(&self, count: u64) {
        self.0.unreported.fetch_sub(count, Ordering::Relaxed);
        self.0.logged.store(false, Ordering::Relaxed);
    }
}
