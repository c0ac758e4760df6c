#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod it {
    mod balance;
    mod behaviours;
    #[cfg(feature = "client")]
    mod client;
    #[cfg(feature = "consul")]
    mod consul;
    #[cfg(feature = "dns")]
    mod dns;
    mod endpoint;
    #[cfg(feature = "etcd")]
    mod etcd;
    #[cfg(feature = "kube")]
    mod kubernetes;
    #[cfg(feature = "module")]
    mod module;
    mod sources;
}
