#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod differential;
    mod expression;
    mod ocps;
    mod oracle;
    mod scheduler;
    mod stores;
    mod suites;
    mod timetables;
}
