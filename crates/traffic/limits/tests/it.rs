#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod algorithms;
    mod behaviours;
    mod concurrency;
    mod layer;
    #[cfg(feature = "module")]
    mod module;
    mod overload;
    mod published;
    mod queue;
    mod quota;
    mod semaphore;
    mod spill;
    mod throttle;
}
