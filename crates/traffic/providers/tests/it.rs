#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod budgets;
    mod chats;
    mod cost;
    mod database;
    mod embeddings;
    #[cfg(feature = "module")]
    mod module;
    mod script;
    mod shared;
    mod sse;
    mod thousand;
}
