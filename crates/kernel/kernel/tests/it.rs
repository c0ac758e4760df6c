//! The kernel's laws, through its public API only.
#![cfg(feature = "app")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "it/app.rs"]
mod app;
#[path = "it/container.rs"]
mod container;
#[path = "it/lifecycle.rs"]
mod lifecycle;
