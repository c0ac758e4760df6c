//! The server over real sockets: what it refuses, what it survives, what it promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "it/descriptors.rs"]
mod descriptors;
#[path = "it/drain.rs"]
mod drain;
#[path = "it/extract.rs"]
mod extract;
#[path = "it/http2.rs"]
mod http2;
#[path = "it/openapi.rs"]
mod openapi;
#[path = "it/problems.rs"]
mod problems;
#[path = "it/raw.rs"]
mod raw;
#[path = "it/receive.rs"]
mod receive;
#[path = "it/support.rs"]
mod support;
#[path = "it/timeouts.rs"]
mod timeouts;
