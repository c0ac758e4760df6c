#![doc = include_str!("../README.md")]

pub mod metrics;

pub use metrics::{Counter, Family, Gauge, Histogram, Metrics, MetricsError, keys};
