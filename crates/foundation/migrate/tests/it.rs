//! Migrations against a real file and a real server.
#![cfg(all(feature = "sqlite", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod it {
    pub mod migrating;
    #[cfg(feature = "module")]
    pub mod module;
    pub mod support;
}
