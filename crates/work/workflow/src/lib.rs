#![doc = include_str!("../README.md")]

mod api;
mod approvers;
mod calendar;
mod command;
mod config;
mod decide;
pub mod definition;
mod drive;
mod error;
mod event;
mod instance;
#[cfg(feature = "testkit")]
#[expect(clippy::unwrap_used, reason = "a broken law fails by panicking")]
pub mod laws;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod step;
pub mod store;
mod task;
mod ticker;
mod timer;
mod versions;
mod views;
mod workflows;

pub use api::{ActRequest, Guard, InboxItem, OrderRequest, StartRequest};
pub use approvers::{ApproverError, Approvers, StaticApprovers};
pub use calendar::Day;
pub use command::{ADMIN, Action, Actor, BYPASS, Command, DEFINE, Order, READ};
pub use config::WorkflowConfig;
pub use decide::{Start, begin, decide};
pub use definition::Definition;
pub use error::WorkflowError;
pub use event::{Event, What};
pub use instance::{Held, Instance, InstanceId, Priority, Status};
pub use memory::MemoryWorkflows;
#[cfg(feature = "metrics")]
pub use metrics::WorkflowMetrics;
#[cfg(feature = "module")]
pub use module::{WORKFLOWS, WorkflowModule};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlWorkflows;
pub use step::{How, ParkReason, Parked, Seat, SeatState, StepRun, StepStatus};
pub use task::Task;
pub use ticker::keep_time;
pub use timer::{Purpose, Timer, TimerKind, Want};
pub use workflows::Workflows;
