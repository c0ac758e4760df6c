#![doc = include_str!("../README.md")]

mod action;
mod calendar;
mod catch_up;
mod config;
mod error;
mod expression;
#[cfg(feature = "jobs")]
mod jobs;
#[cfg(feature = "testkit")]
#[expect(clippy::expect_used, reason = "a broken law fails by panicking")]
pub mod laws;
mod memory;
mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
mod run;
mod schedule;
mod scheduler;
mod schedules;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
pub mod store;
mod timetable;
mod zone;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use action::FireInTx;
pub use action::{Actions, Fire};
pub use calendar::Calendar;
pub use catch_up::{CatchUp, catch_up};
pub use config::CronConfig;
pub use error::CronError;
pub use expression::{
    CronExpression, DayRule, Dialect, Dst, DstGap, DstOverlap, Field, Intervals, ParseError, Problem, Syntax,
    Upcoming,
};
#[cfg(feature = "jobs")]
pub use jobs::{EnqueueJob, JobOf};
pub use memory::MemoryStore;
pub use metrics::CronMetrics;
#[cfg(feature = "module")]
pub use module::{CronContributions, CronModule, SCHEDULES};
pub use schedule::{Misfire, Overlap, Schedule};
pub use scheduler::Scheduler;
pub use schedules::Schedules;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlStore;
pub use store::{Fired, Key, Origin, Stored, Tick, TickRecord, TickState};
pub use timetable::Timetable;
pub use zone::{UnknownZone, Zone};
