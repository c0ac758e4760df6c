//! Health checks, rounds and probes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "it/module.rs"]
#[cfg(feature = "module")]
mod module;
#[path = "it/registry.rs"]
mod registry;
