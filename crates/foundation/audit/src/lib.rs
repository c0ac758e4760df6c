#![doc = include_str!("../README.md")]

mod audit;
mod config;
mod event;
#[cfg(feature = "laws")]
pub mod laws;
mod metrics;
#[cfg(feature = "module")]
mod module;
mod redact;
mod task;
mod writers;

pub use audit::Audit;
pub use config::{AuditConfig, AuditError, WriterKind};
pub use event::{Actor, AuditEvent, Outcome, Severity, Target};
#[cfg(feature = "module")]
pub use module::{AUDIT, AuditApp, AuditModule};
pub use task::AuditTask;
pub use writers::{AuditWriter, Durability, FanOut, FileWriter, MemoryWriter, NoopWriter, StreamWriter};
