#![doc = include_str!("../README.md")]

mod algorithm;
mod concurrency;
mod config;
mod error;
mod window;

pub use algorithm::{Aimd, Algorithm, Fixed, Gradient2, Sample, Vegas};
pub use concurrency::{ConcurrencyLimit, Criticality, Permit};
pub use config::{AlgorithmConfig, ConcurrencyConfig};
pub use error::{LimitsError, Overloaded};
