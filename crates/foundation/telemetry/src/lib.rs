#![doc = include_str!("../README.md")]

mod config;
#[cfg(feature = "logs")]
mod init;
#[cfg(feature = "logs")]
mod logs;
pub mod metrics;
#[cfg(feature = "module")]
mod module;
#[cfg(feature = "otlp")]
mod otlp;
pub mod redact;
mod span;

pub use config::{Format, Stream, TelemetryConfig, TelemetryError};
#[cfg(feature = "logs")]
pub use init::{Telemetry, TelemetryGuard};
#[cfg(feature = "logs")]
pub use logs::Levels;
pub use metrics::{Counter, Family, Gauge, GaugeGuard, Histogram, Metrics, MetricsError, keys};
#[cfg(feature = "module")]
pub use module::{METRICS, MetricsApp, TelemetryModule};
pub use span::{outgoing, span};
