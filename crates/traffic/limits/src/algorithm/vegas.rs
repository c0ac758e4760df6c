//! By the queue that the latency betrays.

use std::ops::RangeInclusive;

use super::baseline::Baseline;
use super::{Algorithm, Sample, bounded, whole};

/// Estimates the queue as `limit × (1 − unloaded / present latency)` and keeps it between three and six times the
/// logarithm of the limit, as TCP Vegas does (Brakmo and Peterson, 1995; Netflix, "Performance Under Load", 2018).
///
/// What calls take without load is measured at the least limit, every 300 windows and after five in a row at the least.
#[derive(Clone, Debug)]
pub struct Vegas {
    limit: f64,
    bounds: RangeInclusive<u32>,
    baseline: Baseline,
}

impl Vegas {
    /// Begins at a limit, after a first measurement at the least.
    pub fn new(initial: u32, bounds: RangeInclusive<u32>) -> Self {
        Self { limit: f64::from(initial), bounds, baseline: Baseline::new() }
    }
}

impl Algorithm for Vegas {
    fn limit(&self) -> u32 {
        if self.baseline.is_measuring() { *self.bounds.start() } else { whole(self.limit) }
    }

    fn update(&mut self, sample: &Sample) -> u32 {
        let was_measuring = self.baseline.is_measuring();
        let Some(unloaded) = self.baseline.observe(sample, *self.bounds.start()) else { return self.limit() };
        if was_measuring {
            return self.limit();
        }
        let latency = sample.latency.as_secs_f64().max(f64::MIN_POSITIVE);
        let step = self.limit.log10().max(1.0);
        let queue = (self.limit * (1.0 - (unloaded / latency).min(1.0))).ceil();
        let next = if sample.dropped {
            self.limit - step
        } else if f64::from(sample.in_flight) * 2.0 < self.limit {
            // Nobody asks for more.
            self.limit
        } else if queue <= step {
            self.limit + 6.0 * step
        } else if queue < 3.0 * step {
            self.limit + step
        } else if queue > 6.0 * step {
            self.limit - step
        } else {
            self.limit
        };
        self.limit = bounded(next, &self.bounds);
        self.baseline.settled(whole(self.limit) == *self.bounds.start());
        self.limit()
    }

    fn give_up(&mut self, sample: Option<&Sample>) -> u32 {
        self.baseline.give_up(sample, *self.bounds.start());
        self.limit()
    }
}
