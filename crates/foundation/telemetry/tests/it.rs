//! What telemetry shows, hides, counts and sends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[cfg(feature = "logs")]
#[path = "it/logs.rs"]
mod logs;
#[path = "it/metrics.rs"]
mod metrics;
#[cfg(feature = "module")]
#[path = "it/module.rs"]
mod module;
#[cfg(feature = "otlp")]
#[path = "it/otlp.rs"]
mod otlp;
