#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod buses;
    #[cfg(all(feature = "sqlite", feature = "module"))]
    mod module;
    #[cfg(feature = "sqlite")]
    mod projections;
    mod stores;
    #[cfg(all(feature = "sqlite", feature = "postgres"))]
    mod transactions;
}
