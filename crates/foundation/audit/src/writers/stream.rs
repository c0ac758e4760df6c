//! One JSON object a line on a stream.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{AuditWriter, Durability, blocking, lines};
use crate::{AuditError, AuditEvent};

/// Writes to standard output or another stream, whose reader is answerable for durability: a durable write is flushed
/// and no more.
#[derive(Clone)]
pub struct StreamWriter(Arc<Mutex<Box<dyn Write + Send>>>);

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamWriter")
    }
}

impl StreamWriter {
    /// Over a stream.
    pub fn new(stream: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(stream))))
    }

    /// Over standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

#[async_trait]
impl AuditWriter for StreamWriter {
    fn name(&self) -> &'static str {
        "a stream"
    }

    async fn write(&self, events: &[AuditEvent], _: Durability) -> Result<(), AuditError> {
        let bytes = lines(self.name(), events)?;
        let stream = Arc::clone(&self.0);
        blocking(self.name(), move || {
            let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            // One call, so that lines of others do not come in between.
            stream.write_all(&bytes)?;
            stream.flush()
        })
        .await
    }

    async fn flush(&self) -> Result<(), AuditError> {
        let stream = Arc::clone(&self.0);
        blocking(self.name(), move || stream.lock().unwrap_or_else(PoisonError::into_inner).flush()).await
    }
}
