#![doc = include_str!("../README.md")]

mod cell;
mod check;
mod config;
#[cfg(feature = "disk")]
mod disk;
#[cfg(feature = "module")]
mod module;
mod registry;
mod report;

pub use check::{Check, HealthCheck, Outcome, Probe};
pub use config::{AlertConfig, CheckConfig, HealthConfig, HealthError};
#[cfg(feature = "disk")]
pub use disk::DiskSpace;
#[cfg(feature = "module")]
pub use module::{HEALTH, HealthApp, HealthChecks, HealthModule};
pub use registry::{HealthBuilder, HealthRegistry};
pub use report::{CheckReport, Report, Status};
