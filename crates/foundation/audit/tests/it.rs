//! What is on record, in which order, and what is said when something is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "it/audit.rs"]
mod audit;
#[cfg(feature = "module")]
#[path = "it/module.rs"]
mod module;
#[cfg(feature = "laws")]
#[path = "it/writers.rs"]
mod writers;
