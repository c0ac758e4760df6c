#![doc = include_str!("../README.md")]

mod change;
mod config;
mod declared;
mod definition;
mod drive;
mod error;
mod history;
mod instance;
mod journal;
#[cfg(feature = "testkit")]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken law fails by panicking")]
pub mod laws;
mod memory;
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
mod run;
mod saga;
mod sagas;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod state;
mod step;
pub mod store;
mod views;
mod waiting;
mod worker;

pub use config::SagaConfig;
pub use declared::Steps;
pub use definition::{Definition, Definitions};
pub use error::SagaError;
pub use instance::{Asked, Failure, Instance, ParkReason, SagaId, Status};
pub use journal::{Entry, What};
pub use memory::MemorySagas;
pub use metrics::SagaMetrics;
#[cfg(feature = "module")]
pub use module::{SAGAS, SagaDefinitions, SagaModule};
pub use saga::Saga;
pub use sagas::{NewSaga, ReasonRequest, Sagas, SignalRequest};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlSagas;
pub use step::{Step, StepKey};
pub use views::{SagaView, Seen, SignalView};
pub use worker::Worker;
