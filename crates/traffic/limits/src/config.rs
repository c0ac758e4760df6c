//! What an operator writes to describe a limit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::algorithm::{Aimd, Algorithm, Fixed, Gradient2, Vegas};
use crate::error::LimitsError;
use crate::queue::QueueConfig;

/// How many calls may be under way, and how that number is found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConcurrencyConfig {
    /// How the limit is found: `fixed`, `aimd`, `vegas` or `gradient2`. Default gradient2.
    pub algorithm: AlgorithmConfig,
    /// The limit it begins with. Default 20.
    pub initial: u32,
    /// The least it may be: more than 0. Default 4.
    pub min: u32,
    /// The most it may be: up to 1,000,000. Default 1,000.
    pub max: u32,
    /// How long samples are gathered before the limit moves: 1 ms to 1 min. Default 100 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub window: Duration,
    /// How many samples a window holds at least. Default 10.
    pub min_samples: u32,
    /// The line in which calls wait for a place. None by default: they are turned away at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueConfig>,
}

/// How a limit is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum AlgorithmConfig {
    /// It stays as it is.
    Fixed,
    /// Up by one while it is used, down by a tenth when a call is dropped or takes longer than `timeout`.
    Aimd {
        /// A call that takes longer counts as dropped.
        #[serde(with = "runtime_kernel::units::duration")]
        timeout: Duration,
    },
    /// By the queue that the latency over the shortest seen betrays.
    Vegas,
    /// By the ratio of the long-term latency to the present one.
    #[default]
    Gradient2,
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self {
            algorithm: AlgorithmConfig::default(),
            initial: 20,
            min: 4,
            max: 1_000,
            window: Duration::from_millis(100),
            min_samples: 10,
            queue: None,
        }
    }
}

impl ConcurrencyConfig {
    /// So many calls, always.
    pub fn fixed(calls: u32) -> Self {
        Self { algorithm: AlgorithmConfig::Fixed, initial: calls, min: calls, max: calls, ..Self::default() }
    }

    pub(crate) fn check(self) -> Result<(), LimitsError> {
        let wrong = |key: &'static str, message: &'static str| Err(LimitsError::new(key, message));
        if self.min == 0 {
            return wrong("min", "must be more than 0");
        }
        if self.max < self.min || self.max > 1_000_000 {
            return wrong("max", "must be between `min` and 1000000");
        }
        if !(self.min..=self.max).contains(&self.initial) {
            return wrong("initial", "must be between `min` and `max`");
        }
        if !(Duration::from_millis(1)..=Duration::from_mins(1)).contains(&self.window) {
            return wrong("window", "must be 1ms to 1m");
        }
        if self.min_samples == 0 {
            return wrong("min_samples", "must be more than 0");
        }
        match self.algorithm {
            AlgorithmConfig::Aimd { timeout } if timeout.is_zero() => {
                wrong("algorithm.aimd.timeout", "must be more than 0")
            }
            _ => self.queue.map_or(Ok(()), QueueConfig::check),
        }
    }

    pub(crate) fn build(self) -> Box<dyn Algorithm> {
        let (initial, bounds) = (self.initial, self.min..=self.max);
        match self.algorithm {
            AlgorithmConfig::Fixed => Box::new(Fixed::new(initial)),
            AlgorithmConfig::Aimd { timeout } => Box::new(Aimd::new(initial, bounds, timeout)),
            AlgorithmConfig::Vegas => Box::new(Vegas::new(initial, bounds)),
            AlgorithmConfig::Gradient2 => Box::new(Gradient2::new(initial, bounds)),
        }
    }
}
