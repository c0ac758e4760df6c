#![doc = include_str!("../README.md")]

mod api;
mod approvers;
mod calendar;
mod command;
mod config;
mod decide;
pub mod definition;
mod error;
mod event;
mod instance;
#[cfg(feature = "testkit")]
#[expect(clippy::unwrap_used, reason = "a broken law fails by panicking")]
pub mod laws;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
pub mod store;
mod ticker;
mod versions;
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
pub use instance::{
    Held, How, Instance, InstanceId, ParkReason, Parked, Priority, Purpose, Seat, SeatState, Status, StepRun,
    StepStatus, Task, Timer, TimerKind, Want,
};
pub use memory::MemoryWorkflows;
#[cfg(feature = "module")]
pub use module::{WORKFLOWS, WorkflowModule};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlWorkflows;
pub use ticker::keep_time;
pub use workflows::Workflows;
