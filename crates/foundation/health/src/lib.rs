#![doc = include_str!("../README.md")]

mod check;
mod config;
#[cfg(feature = "module")]
mod module;
mod registry;
mod report;
mod slot;

pub use check::{Finding, HealthCheck, HealthChecks, check};
pub use config::{HealthConfig, HealthError};
#[cfg(feature = "module")]
pub use module::{HEALTH, HealthApp, HealthModule};
pub use registry::{HealthBuilder, HealthRegistry};
pub use report::{CheckReport, Report, Status};
