//! One binary for all tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod fleet;
    mod histories;
    mod judges;
    mod outbox;
    mod soak;
}
