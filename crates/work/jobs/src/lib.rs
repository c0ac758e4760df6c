#![doc = include_str!("../README.md")]

mod config;
mod error;
mod handler;
mod job;
mod memory;
mod metrics;
mod queue;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod schema;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
pub mod store;
mod worker;

pub use config::JobsConfig;
pub use error::JobsError;
pub use handler::{Handlers, JobContext, JobKind};
pub use job::{Attempt, AttemptOutcome, Enqueued, Failure, Job, JobId, JobState, NewJob};
pub use memory::MemoryStore;
pub use metrics::JobMetrics;
pub use queue::Jobs;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use schema::TABLES;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlStore;
pub use worker::{Worker, keep_house};
