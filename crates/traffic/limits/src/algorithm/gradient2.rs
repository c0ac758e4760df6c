//! By the ratio of the latency without load to the present one.

use std::ops::RangeInclusive;

use super::baseline::Baseline;
use super::{Algorithm, Sample, bounded, whole};

/// How much longer than without load calls may take before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// How much of a new limit is taken over at once.
const SMOOTHING: f64 = 0.2;

/// Moves the limit by `tolerance × unloaded / present latency`, between a half and one, plus room for a queue of the
/// limit's square root (Netflix, "Performance Under Load", 2018; the room is Envoy's).
///
/// Netflix's Gradient2 compares with the long-term average, which drifts upwards for as long as a service is
/// overloaded. Here it is compared with what calls take at the least limit, measured every 300 windows and after five in a row at the least.
#[derive(Clone, Debug)]
pub struct Gradient2 {
    limit: f64,
    bounds: RangeInclusive<u32>,
    baseline: Baseline,
}

impl Gradient2 {
    /// Begins at a limit, after a first measurement at the least.
    pub fn new(initial: u32, bounds: RangeInclusive<u32>) -> Self {
        Self { limit: f64::from(initial), bounds, baseline: Baseline::new() }
    }
}

impl Algorithm for Gradient2 {
    fn limit(&self) -> u32 {
        if self.baseline.is_measuring() { *self.bounds.start() } else { whole(self.limit) }
    }

    fn update(&mut self, sample: &Sample) -> u32 {
        let before = self.limit();
        let was_measuring = self.baseline.is_measuring();
        let Some(unloaded) = self.baseline.observe(sample, *self.bounds.start()) else { return self.limit() };
        // The window in which a measurement ended says nothing about the limit that is taken up again, and while
        // nobody asks for more, what is seen says nothing about a higher one.
        if was_measuring || f64::from(sample.in_flight) < f64::from(before) / 2.0 {
            return self.limit();
        }
        let latency = sample.latency.as_secs_f64().max(f64::MIN_POSITIVE);
        let gradient = if sample.dropped { 0.5 } else { (TOLERANCE * unloaded / latency).clamp(0.5, 1.0) };
        let wanted = self.limit * gradient + self.limit.sqrt();
        self.limit = bounded(self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING, &self.bounds);
        self.baseline.settled(whole(self.limit) == *self.bounds.start());
        self.limit()
    }

    fn give_up(&mut self, sample: Option<&Sample>) -> u32 {
        self.baseline.give_up(sample, *self.bounds.start());
        self.limit()
    }
}
