//! Where events are written.

mod fan_out;
mod file;
mod memory;
mod stream;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use fan_out::FanOut;
pub use file::FileWriter;
pub use memory::{MemoryWriter, NoopWriter};
pub use stream::StreamWriter;

use crate::{AuditError, AuditEvent};

/// How safe events are when a write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Handed to the operating system or the other side: outlives the process, not the machine.
    Buffered,
    /// On stable storage: outlives a power cut, as far as the medium can tell.
    Durable,
}

/// Somewhere events are kept. The feature `laws` holds what every writer keeps to.
#[async_trait]
pub trait AuditWriter: fmt::Debug + Send + Sync + 'static {
    /// The writer's name in errors.
    fn name(&self) -> &'static str;

    /// Appends the events in order. Never called concurrently by an [`Audit`](crate::Audit). After an error the same
    /// events come again, so some may be on record twice, under one id.
    ///
    /// # Errors
    /// [`AuditError::Write`]; part of the events may have been written.
    async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`AuditError::Write`].
    async fn flush(&self) -> Result<(), AuditError>;
}

#[async_trait]
impl<W: AuditWriter + ?Sized> AuditWriter for Arc<W> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    async fn write(&self, events: &[AuditEvent], durability: Durability) -> Result<(), AuditError> {
        (**self).write(events, durability).await
    }

    async fn flush(&self) -> Result<(), AuditError> {
        (**self).flush().await
    }
}

/// One JSON object a line.
fn lines(writer: &'static str, events: &[AuditEvent]) -> Result<Vec<u8>, AuditError> {
    let mut bytes = Vec::new();
    for event in events {
        serde_json::to_writer(&mut bytes, event)
            .map_err(|error| AuditError::Write { writer, why: error.to_string() })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Does blocking work where it blocks nobody.
async fn blocking<F>(writer: &'static str, work: F) -> Result<(), AuditError>
where
    F: FnOnce() -> std::io::Result<()> + Send + 'static,
{
    let failed = |why: String| AuditError::Write { writer, why };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
