//! Takes events off the queue and writes them, in batches, in order.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runtime_kernel::SharedClock;
use tokio::sync::{Mutex, mpsc};

use crate::audit::Queued;
use crate::{Audit, AuditConfig, AuditError, AuditEvent, AuditWriter, Durability, Severity};

/// What writes the queue of an [`Audit`].
pub struct AuditTask {
    audit: Audit,
    events: Mutex<mpsc::Receiver<Queued>>,
}

impl fmt::Debug for AuditTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTask").field("audit", &self.audit).finish_non_exhaustive()
    }
}

impl AuditTask {
    pub(crate) fn new(audit: Audit, events: mpsc::Receiver<Queued>) -> Self {
        Self { audit, events: Mutex::new(events) }
    }

    /// Writes until `stop` is ready, then writes what is still queued, flushes and returns; from then on events are
    /// written by whoever records them. Dropped and run again, it goes on with what is queued; a batch it was
    /// dropped over is lost, and critical events in it are answered with an error.
    ///
    /// # Errors
    /// The writer's, when the last flush fails.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<(), AuditError> {
        let mut events = self.events.lock().await;
        let mut stop = std::pin::pin!(stop);
        let mut batch = Vec::new();
        let size = self.audit.0.config.batch;
        loop {
            let taken = tokio::select! {
                biased;
                () = &mut stop => break,
                taken = events.recv_many(&mut batch, size) => taken,
            };
            if taken == 0 {
                break;
            }
            self.write(&mut batch).await;
        }
        events.close();
        while events.recv_many(&mut batch, size).await > 0 {
            self.write(&mut batch).await;
        }
        self.report_drops().await;
        self.audit.0.sink.flush().await
    }

    async fn write(&self, batch: &mut Vec<Queued>) {
        let (mut events, mut waiting) = (Vec::new(), Vec::new());
        for queued in batch.drain(..) {
            events.push(queued.event);
            waiting.extend(queued.done);
        }
        let durable = events.iter().any(|event| event.severity == Severity::Critical);
        let result = self.audit.0.sink.write(&events, durable).await;
        match &result {
            Ok(()) => {
                for event in &events {
                    self.audit.0.metrics.written(event.severity);
                }
            }
            Err(error) => {
                tracing::error!(target: "audit", %error, events = events.len(), "audit events were not written");
                self.audit.lost(events.len() as u64, "the writer fails");
            }
        }
        for done in waiting {
            // Whoever waited may have gone.
            let _ = done.send(result.clone());
        }
        if result.is_ok() {
            self.report_drops().await;
        }
    }

    /// Puts on record how much is missing from it.
    async fn report_drops(&self) {
        let count = self.audit.0.unreported.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let event = AuditEvent::new("audit.dropped")
            .severity(Severity::Warning)
            .outcome(crate::Outcome::Failure)
            .message("events before this one were not recorded")
            .meta("count", count);
        let event = self.audit.stamp(event);
        if self.audit.0.sink.write(&[event], false).await.is_ok() {
            self.audit.0.metrics.written(Severity::Warning);
            self.audit.reported(count);
        }
    }
}

/// The writer behind its attempts and timeout. One write at a time, so that the order on record is one order.
pub(crate) struct Sink {
    pub(crate) writer: Arc<dyn AuditWriter>,
    clock: SharedClock,
    attempts: u32,
    backoff: Duration,
    timeout: Duration,
    turn: Mutex<()>,
}

impl Sink {
    pub(crate) fn new(writer: Arc<dyn AuditWriter>, config: &AuditConfig, clock: SharedClock) -> Self {
        let &AuditConfig { attempts, backoff, timeout, .. } = config;
        Self { writer, clock, attempts, backoff, timeout, turn: Mutex::new(()) }
    }

    pub(crate) async fn write(&self, events: &[AuditEvent], durable: bool) -> Result<(), AuditError> {
        let _turn = self.turn.lock().await;
        let durability = if durable { Durability::Durable } else { Durability::Buffered };
        let mut wait = self.backoff;
        let mut attempt = 1;
        loop {
            let result = self.timed(self.writer.write(events, durability)).await;
            if result.is_ok() || attempt >= self.attempts {
                return result;
            }
            self.clock.sleep(wait).await;
            wait = wait.saturating_mul(2);
            attempt += 1;
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), AuditError> {
        let _turn = self.turn.lock().await;
        self.timed(self.writer.flush()).await
    }

    async fn timed(&self, work: impl Future<Output = Result<(), AuditError>>) -> Result<(), AuditError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.clock.sleep(self.timeout) => Err(AuditError::Timeout),
        }
    }
}
