#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod analysis;
    mod assign;
    mod behaviours;
    mod control;
    #[cfg(feature = "proxy")]
    mod proxy;
    mod service;
    mod stores;
}
