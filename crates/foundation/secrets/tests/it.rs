//! What secrets never do, and what every provider does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "it/providers.rs"]
#[cfg(feature = "laws")]
mod providers;
#[path = "it/secret.rs"]
mod secret;
