#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    mod database;
    mod differential;
    mod expression;
    #[cfg(feature = "module")]
    mod module;
    mod ocps;
    mod oracle;
    mod scheduler;
    mod stores;
    mod suites;
    mod timetables;
    mod years;
    mod zones;
}
