//! Endpoints in a file.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::SharedClock;

use super::{Source, Teller};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// Endpoints in a file, one a line as [`Endpoint::parse`] reads them, `#` before comments; or a JSON array of them.
/// Looked at every so often; a file that cannot be read, or has a line that is wrong, changes nothing.
#[derive(Clone, Debug)]
pub struct Lines {
    path: PathBuf,
    every: Duration,
    clock: SharedClock,
}

impl Lines {
    /// A file that is looked at once a second.
    pub fn new(path: impl Into<PathBuf>, clock: SharedClock) -> Self {
        Self { path: path.into(), every: Duration::from_secs(1), clock }
    }

    /// Looked at this often.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    fn parse(text: &str) -> Result<Vec<Endpoint>, String> {
        if text.trim_start().starts_with('[') && serde_json::from_str::<serde_json::Value>(text).is_ok() {
            return serde_json::from_str(text).map_err(|error| error.to_string());
        }
        let lines = text
            .lines()
            .enumerate()
            .map(|(nth, line)| (nth + 1, line.split('#').next().unwrap_or("").trim()));
        let endpoints = lines.filter(|(_, line)| !line.is_empty());
        endpoints
            .map(|(nth, line)| Endpoint::parse(line).map_err(|error| format!("line {nth}: {error}")))
            .collect()
    }
}

#[async_trait]
impl Source for Lines {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        let wrong = |why: String| DiscoveryError::source(format!("the file {}", self.path.display()), why);
        let mut before = None;
        loop {
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
            let text =
                read.map_err(|error| wrong(error.to_string()))?.map_err(|error| wrong(error.to_string()))?;
            if before.as_ref() != Some(&text) {
                teller.tell(Self::parse(&text).map_err(wrong)?);
                before = Some(text);
            }
            self.clock.sleep(self.every).await;
        }
    }
}
