#![doc = include_str!("../README.md")]

mod config;
mod error;
mod inbox;
#[cfg(feature = "jobs")]
mod jobs;
#[cfg(feature = "testkit")]
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "a broken law fails by panicking")]
pub mod laws;
mod memory;
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
mod publish;
mod relay;
mod row;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
pub mod store;

pub use config::{OnParked, OutboxConfig};
pub use error::OutboxError;
pub use inbox::{InboxStore, MemoryInbox, Once};
#[cfg(feature = "jobs")]
pub use jobs::JobSink;
pub use memory::MemoryOutbox;
pub use metrics::OutboxMetrics;
#[cfg(feature = "module")]
pub use module::{INBOX, OUTBOX, OutboxModule, OutboxSinks};
#[cfg(all(feature = "module", any(feature = "sqlite", feature = "postgres")))]
pub use module::{SQL_INBOX, SQL_OUTBOX};
pub use relay::{Relay, keep_house};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::{SqlInbox, SqlOutbox};
pub use store::{Channel, OutboxStore};
