//! Settings, and what can go wrong.

use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind, units};
use serde::{Deserialize, Serialize};

/// The section `audit`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AuditConfig {
    /// Where events go: each of these gets every event. Unless set, what the app chose (`["stdout"]` unless it did).
    /// Modules may add writers of their own.
    pub writers: Option<Vec<WriterKind>>,
    /// The file of the writer `file`. Default `audit.jsonl` in the working directory.
    pub file: PathBuf,
    /// How many events wait for the writer. Beyond them what is not critical is dropped, and critical ones wait for
    /// room. Default 1024.
    pub queue: usize,
    /// How many events are written at once. Default 128.
    pub batch: usize,
    /// How often a write is tried. Default 3.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one. Default 100 ms.
    #[serde(with = "units::duration")]
    pub backoff: Duration,
    /// The longest one write may take, and the longest a critical event is waited for in all. Default 5 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            writers: None,
            file: PathBuf::from("audit.jsonl"),
            queue: 1_024,
            batch: 128,
            attempts: 3,
            backoff: Duration::from_millis(100),
            timeout: Duration::from_secs(5),
        }
    }
}

/// A writer the configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriterKind {
    /// One JSON object a line on standard output.
    Stdout,
    /// One JSON object a line, appended to a file.
    File,
}

/// Why an event was not recorded, or auditing not set up. Never carries the event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A setting does not hold.
    #[error("audit.{field}: {message}")]
    Setting {
        /// Its name in the section.
        field: &'static str,
        /// What is wrong.
        message: &'static str,
    },
    /// A writer failed.
    #[error("the audit event was not written by {writer}: {why}")]
    Write {
        /// Which.
        writer: &'static str,
        /// Why.
        why: String,
    },
    /// It took too long. The event may still be written.
    #[error("the audit event was not written in time")]
    Timeout,
}

impl Classify for AuditError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } => ErrorKind::Invalid,
            Self::Write { .. } | Self::Timeout => ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "audit.setting",
            Self::Write { .. } => "audit.write",
            Self::Timeout => "audit.timeout",
        }
    }
}

runtime_kernel::into_error!(AuditError);

impl AuditConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`AuditError::Setting`] names the first that does not hold.
    pub fn check(&self) -> Result<(), AuditError> {
        let zero = |field| Err(AuditError::Setting { field, message: "must not be 0" });
        match self {
            Self { queue: 0, .. } => zero("queue"),
            Self { batch: 0, .. } => zero("batch"),
            Self { attempts: 0, .. } => zero("attempts"),
            Self { timeout: Duration::ZERO, .. } => zero("timeout"),
            _ => Ok(()),
        }
    }
}
