#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod common;
    mod faults;
    #[cfg(feature = "jobs")]
    mod jobs;
    #[cfg(all(feature = "module", feature = "sqlite"))]
    mod module;
    #[cfg(feature = "postgres")]
    mod nats;
    mod order;
    #[cfg(feature = "postgres")]
    mod postgres;
    mod stores;
}
