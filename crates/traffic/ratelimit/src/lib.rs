#![doc = include_str!("../README.md")]

#[cfg(feature = "axum")]
mod axum;
mod bucket;
mod buckets;
#[cfg(feature = "http")]
mod client_ip;
mod config;
#[cfg(all(test, runtime_loom))]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod explored;
#[cfg(feature = "http")]
mod headers;
mod history;
#[cfg(feature = "http")]
mod layer;
#[cfg(feature = "redis")]
mod lease;
mod limiter;
#[cfg(feature = "module")]
mod module;
mod operator;
mod outcome;
mod rate;
#[cfg(feature = "redis")]
mod redis;
mod reserve;
mod reserved;
mod rules;
mod sync;
mod table;
mod wait;
mod word;

#[cfg(feature = "axum")]
pub use crate::axum::ClientIp;
pub use buckets::{Answer, Buckets, Demand, Together};
#[cfg(feature = "http")]
pub use client_ip::client_ip;
pub use config::{By, HeaderStyle, RateLimitConfig, RuleConfig, Store, WhenAway};
#[cfg(feature = "http")]
pub use layer::{Applies, Decision, Lookup, RateLimitFuture, RateLimitLayer, RateLimitService};
pub use limiter::{Ask, Builder, MOST_KEYS, Overflow, RateLimiter, RefusedTogether, Tightest};
#[cfg(feature = "module")]
pub use module::{BUCKETS, OPERATIONS, RATE_LIMITS, RateLimitModule};
pub use operator::{OperatorError, RateLimits, RuleInfo};
pub use outcome::{LimitError, Standing};
pub use rate::{Rate, RateConfig, RateError};
#[cfg(feature = "redis")]
pub use redis::{Lease, RedisBuckets};
pub use reserve::Reservation;
pub use reserved::Reserved;
pub use rules::{Operations, RuleError};
