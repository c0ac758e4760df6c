#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod behaviours;
    mod buckets;
    mod config;
    mod law;
    mod laws;
    #[cfg(feature = "http")]
    mod layer;
    #[cfg(feature = "module")]
    mod module;
    #[cfg(feature = "redis")]
    mod redis;
    mod threads;
    mod together;
    mod wait;
}
