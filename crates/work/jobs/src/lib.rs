#![doc = include_str!("../README.md")]

mod attempt;
mod config;
mod error;
mod flow;
mod handler;
mod job;
#[cfg(feature = "testkit")]
#[expect(clippy::expect_used, reason = "a broken law fails by panicking")]
pub mod laws;
mod layer;
mod limit;
mod linked;
mod links;
mod local;
mod memory;
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
mod pressure;
mod queue;
#[cfg(feature = "seal")]
mod seal;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
pub mod store;
mod worker;

pub use config::JobsConfig;
pub use error::JobsError;
pub use flow::{Flow, FlowError, Flowed};
pub use handler::{Handlers, JobContext, JobKind};
pub use job::{Attempt, AttemptOutcome, Enqueued, Failure, Job, JobId, JobState, NewJob};
pub use layer::Next;
pub use limit::Limit;
pub use links::{After, Batch, BatchId, Batched, Links, MAX_PREREQUISITES, NewBatch, Prerequisite, Trigger};
pub use memory::MemoryStore;
pub use metrics::JobMetrics;
#[cfg(feature = "module")]
pub use module::{JOBS, JobHandlers, JobsModule};
pub use pressure::{Bound, Pressure};
pub use queue::Jobs;
#[cfg(feature = "seal")]
pub use seal::Keyring;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlStore;
pub use worker::{Worker, keep_house};
