#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod authenticate;
    mod keys;
    #[cfg(feature = "http")]
    mod layer;
    mod memory;
    #[cfg(feature = "module")]
    mod module;
    #[cfg(feature = "postgres")]
    mod postgres;
    mod setup;
    #[cfg(feature = "sqlite")]
    mod sqlite;
}
