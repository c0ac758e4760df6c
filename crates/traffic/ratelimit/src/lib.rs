#![doc = include_str!("../README.md")]

#[cfg(all(test, loom))]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod explored;
mod history;
mod limiter;
mod outcome;
mod rate;
mod reserve;
mod sync;
mod table;
mod ticks;
mod wait;
mod word;

pub use limiter::{Ask, Builder, MOST_KEYS, Overflow, RateLimiter, RefusedTogether};
pub use outcome::{LimitError, Standing};
pub use rate::{Rate, RateConfig, RateError};
pub use reserve::Reservation;
