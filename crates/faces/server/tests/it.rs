#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]
//! The real binary, driven as a user drives it.

mod it {
    mod batches;
    mod commands;
    mod crossbridge;
    mod discovery;
    mod first_run;
    mod hook;
    mod house;
    mod limits;
    mod maintenance;
    mod openapi;
    mod outbox;
    mod queues;
    mod readme;
    mod rollouts;
    mod shutdown;
    mod soak;
    mod split_modes;
    mod standing;
    mod tenants;
    mod work;
}
