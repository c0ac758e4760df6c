//! What probes answer, whatever checks do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "it/behaviours.rs"]
mod behaviours;
#[cfg(feature = "disk")]
#[path = "it/disk.rs"]
mod disk;
#[cfg(feature = "module")]
#[path = "it/module.rs"]
mod module;
#[path = "it/registry.rs"]
mod registry;
