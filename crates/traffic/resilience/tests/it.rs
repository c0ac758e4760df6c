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
    mod breaker;
    mod breaker_model;
    mod budget;
    mod bulkhead;
    mod chain;
    #[cfg(feature = "backoff")]
    mod compat;
    mod contention;
    #[cfg(feature = "tower")]
    mod guard;
    mod hedging;
    #[cfg(feature = "tower")]
    mod layer;
    #[cfg(feature = "module")]
    mod module;
    mod pipeline;
    mod policy;
    mod run;
    mod storm;
}
