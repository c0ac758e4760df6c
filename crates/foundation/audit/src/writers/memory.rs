//! Writers that keep events in memory, or not at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{AuditWriter, Durability};
use crate::{AuditError, AuditEvent};

/// Keeps events in memory, without limit: for tests. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct MemoryWriter(Arc<Mutex<Vec<(AuditEvent, Durability)>>>);

impl MemoryWriter {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events so far, in the order they were written.
    pub fn events(&self) -> Vec<AuditEvent> {
        self.lock().iter().map(|(event, _)| event.clone()).collect()
    }

    /// The events that were asked to be durable.
    pub fn durable(&self) -> Vec<AuditEvent> {
        let kept = self.lock();
        kept.iter()
            .filter(|(_, durability)| *durability == Durability::Durable)
            .map(|(event, _)| event.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(AuditEvent, Durability)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditWriter for MemoryWriter {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError> {
        self.lock().extend(events.iter().map(|event| (event.clone(), durability)));
        Ok(())
    }

    async fn flush(&self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// Keeps nothing: for services that must not audit.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopWriter;

#[async_trait]
impl AuditWriter for NoopWriter {
    fn name(&self) -> &'static str {
        "nothing"
    }

    async fn write(&self, _: &[AuditEvent], _: Durability) -> Result<(), AuditError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), AuditError> {
        Ok(())
    }
}
