#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod crash;
    mod flows;
    mod layers;
    mod link_races;
    mod model;
    mod pressure;
    mod proofs;
    mod races;
    mod stores;
    mod worker;
    mod zombies;
}
