#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod breaker;
    #[cfg(feature = "backoff")]
    mod compat;
    #[cfg(feature = "tower")]
    mod layer;
    #[cfg(feature = "module")]
    mod module;
    mod policy;
    mod run;
}
