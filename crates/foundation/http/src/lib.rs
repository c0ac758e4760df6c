#![doc = include_str!("../README.md")]

mod body;
mod config;
mod connection;
mod extract;
mod head;
mod metrics;
#[cfg(feature = "module")]
mod module;
mod openapi;
mod phase;
mod problem;
mod receive;
mod route;
mod router;
mod schemas;
mod server;
mod transport;

pub use axum;
pub use config::HttpConfig;
pub use extract::{Ctx, Json, Path, Query};
pub use metrics::HttpMetrics;
#[cfg(feature = "module")]
pub use module::{HttpApp, HttpModule, HttpParts};
pub use openapi::openapi;
pub use phase::{Phase, Stack};
pub use problem::{HttpError, PROBLEM_JSON, Place, Problem, Result};
pub use route::{Route, RouteInfo};
pub use router::router;
pub use server::{DrainReport, Server, ServerError};
