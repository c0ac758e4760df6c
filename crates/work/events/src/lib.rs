#![doc = include_str!("../README.md")]

pub mod bus;
pub mod cloudevent;
mod config;
mod consumer;
mod error;
mod handling;
mod incoming;
#[cfg(feature = "testkit")]
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken law fails by panicking"
)]
pub mod laws;
pub mod log;
mod memory;
mod message;
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
#[cfg(feature = "nats")]
pub mod nats;
mod publisher;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "client")]
mod web;

pub use cloudevent::{AttributeValue, CloudEvent, CloudEventBuilder, Data};
pub use config::EventsConfig;
pub use consumer::{Consumer, keep_house};
pub use error::EventsError;
pub use incoming::{Handler, Incoming};
pub use log::{EventLog, SubscriptionSpec};
pub use memory::MemoryLog;
pub use message::{MAX_TOPIC, Message};
pub use metrics::EventMetrics;
#[cfg(all(feature = "module", any(feature = "sqlite", feature = "postgres")))]
pub use module::SQL_LOG;
#[cfg(feature = "module")]
pub use module::{BUS, EVENT_LOG, EventHandlers, EventsModule};
pub use publisher::{Publisher, Receipt};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlLog;
#[cfg(feature = "client")]
pub use web::HttpPublisher;
