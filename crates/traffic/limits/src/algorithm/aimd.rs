//! Additive increase, multiplicative decrease.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Algorithm, Sample, bounded, whole};

/// What the limit is multiplied by when a call is dropped.
const BACKOFF: f64 = 0.9;

/// Up by one while at least half of the limit is used, down by a tenth on a drop (Chiu and Jain, 1989).
///
/// It needs a time-out that tells overload: it does not look at latency otherwise. A [`ConcurrencyLimit`] with this
/// algorithm holds every call it measures against the time-out; by itself it knows what a window's calls took on average.
///
/// [`ConcurrencyLimit`]: crate::ConcurrencyLimit
#[derive(Clone, Debug)]
pub struct Aimd {
    limit: f64,
    bounds: RangeInclusive<u32>,
    timeout: Duration,
}

impl Aimd {
    /// Begins at a limit.
    pub fn new(initial: u32, bounds: RangeInclusive<u32>, timeout: Duration) -> Self {
        Self { limit: f64::from(initial), bounds, timeout }
    }
}

impl Algorithm for Aimd {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn update(&mut self, sample: &Sample) -> u32 {
        if sample.dropped || sample.latency > self.timeout {
            self.limit = bounded(self.limit * BACKOFF, &self.bounds);
        } else if f64::from(sample.in_flight) * 2.0 >= self.limit {
            self.limit = bounded(self.limit + 1.0, &self.bounds);
        }
        self.limit()
    }
}
