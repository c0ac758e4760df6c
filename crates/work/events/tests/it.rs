#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod bus;
    mod format;
    #[cfg(feature = "http")]
    mod http_binding;
    #[cfg(all(feature = "module", feature = "sqlite"))]
    mod module;
    #[cfg(feature = "nats")]
    mod nats;
    mod stores;
    #[cfg(feature = "client")]
    mod web;
}
