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
#[path = "it/app_services.rs"]
mod app_services;
#[path = "it/config.rs"]
mod config;
#[path = "it/config_athyper.rs"]
mod config_athyper;
#[path = "it/config_crossbridge.rs"]
mod config_crossbridge;
#[path = "it/config_explain.rs"]
mod config_explain;
#[path = "it/config_locks.rs"]
mod config_locks;
#[path = "it/config_reload.rs"]
mod config_reload;
#[path = "it/config_support.rs"]
mod config_support;
#[path = "it/container.rs"]
mod container;
#[path = "it/container_disposal.rs"]
mod container_disposal;
#[path = "it/lifecycle.rs"]
mod lifecycle;
