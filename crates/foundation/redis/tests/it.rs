#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    #[cfg(feature = "cluster")]
    mod cluster;
    mod manager;
    #[cfg(feature = "sentinel")]
    mod sentinel;
}
