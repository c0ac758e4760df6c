//! The resolution rules, whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::type_complexity,
    missing_docs,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod it {
    #[cfg(feature = "http")]
    pub mod layer;
    pub mod matrix;
    #[cfg(feature = "module")]
    pub mod module;
    pub mod rules;
    pub mod support;
}
