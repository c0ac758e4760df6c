#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod it {
    mod behaviour;
    mod crash;
    mod hooked;
    mod joins;
    mod model;
    #[cfg(feature = "module")]
    mod module;
    mod operators;
    mod stores;
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    mod transactions;
    mod worker;
    mod world;
}
