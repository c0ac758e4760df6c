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
    mod admin;
    mod calendar;
    mod conditions;
    mod decisions;
    mod defects;
    mod definitions;
    mod desk;
    mod model;
    #[cfg(feature = "module")]
    mod module;
    mod race;
    mod service;
    mod stores;
    mod time;
}
