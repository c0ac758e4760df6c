#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod address;
    mod behaviours;
    mod body;
    mod calls;
    mod dependencies;
    mod guard;
    mod hooks;
    #[cfg(feature = "module")]
    mod module;
    mod redirects;
    mod retries;
    mod server;
    mod streams;
    mod ways;
}
