//! Every event to several writers.

use std::sync::Arc;

use async_trait::async_trait;

use super::{AuditWriter, Durability};
use crate::{AuditError, AuditEvent};

/// Writes every event to each writer, one after another. All are tried; the first failure is reported, and the
/// repetition that follows it reaches those that had succeeded as well.
#[derive(Clone, Debug, Default)]
pub struct FanOut(Vec<Arc<dyn AuditWriter>>);

impl FanOut {
    /// Over these writers. None is the same as [`NoopWriter`](crate::NoopWriter).
    pub fn new(writers: impl IntoIterator<Item = Arc<dyn AuditWriter>>) -> Self {
        Self(writers.into_iter().collect())
    }

    /// Adds a writer.
    #[must_use]
    pub fn and(mut self, writer: impl AuditWriter) -> Self {
        self.0.push(Arc::new(writer));
        self
    }
}

#[async_trait]
impl AuditWriter for FanOut {
    fn name(&self) -> &'static str {
        "several writers"
    }

    async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError> {
        let mut result = Ok(());
        for writer in &self.0 {
            result = result.and(writer.write(events, durability).await);
        }
        result
    }

    async fn flush(&self) -> Result<(), AuditError> {
        let mut result = Ok(());
        for writer in &self.0 {
            result = result.and(writer.flush().await);
        }
        result
    }
}
