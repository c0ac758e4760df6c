//! Is there room on the disk?

use std::path::PathBuf;

use async_trait::async_trait;
use runtime_kernel::units::ByteSize;

use crate::{HealthCheck, Outcome};

/// Unhealthy when less than one limit is free on the disk that holds a path, degraded below another.
#[derive(Clone, Debug)]
pub struct DiskSpace {
    path: PathBuf,
    degraded_below: ByteSize,
    unhealthy_below: ByteSize,
}

impl DiskSpace {
    /// Watches the disk that holds `path`: degraded below 512 MiB free, unhealthy below 64 MiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), degraded_below: ByteSize::mib(512), unhealthy_below: ByteSize::mib(64) }
    }

    /// Sets the limits. An unhealthy limit above the degraded one leaves no degraded state.
    #[must_use]
    pub fn limits(mut self, degraded_below: ByteSize, unhealthy_below: ByteSize) -> Self {
        (self.degraded_below, self.unhealthy_below) = (degraded_below, unhealthy_below);
        self
    }
}

#[async_trait]
impl HealthCheck for DiskSpace {
    async fn check(&self) -> Outcome {
        let path = self.path.clone();
        // A network mount may hang.
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path)).await;
        let stat = match asked {
            Ok(Ok(stat)) => stat,
            Ok(Err(error)) => return Outcome::unhealthy(format!("the disk cannot be asked: {error}")),
            Err(error) => return Outcome::unhealthy(error.to_string()),
        };
        // What an unprivileged process may use.
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let outcome = if free < self.unhealthy_below.as_u64() {
            Outcome::unhealthy("the disk is full")
        } else if free < self.degraded_below.as_u64() {
            Outcome::degraded("the disk is nearly full")
        } else {
            Outcome::healthy()
        };
        outcome.detail("free_bytes", free).detail("total_bytes", total)
    }
}
