//! What a call takes when nothing waits, measured anew from time to time.

use super::Sample;

/// How many windows are measured.
const MEASURED: u32 = 3;
/// How many windows a measurement is waited for: calls that began before it may take long. Just so many windows' time is
/// one waited for that does not fill, once there is no room for others.
pub(crate) const PATIENCE: u32 = 50;
/// How many windows lie between two measurements.
const EVERY: u32 = 300;
/// After how many windows in a row at the least limit it is measured anew: the service has become slower.
const STUCK: u32 = 5;

/// The latency without a queue.
///
/// Averages and minima of a loaded service drift: what is waited for becomes normal, or what was once fast is held up to
/// a service that has become slower for good. So the limit goes down to its least for a moment, and what calls take
/// then is the baseline (Envoy's adaptive concurrency filter does the same).
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    latency: Option<f64>,
    /// Windows since the last measurement ended, or since the present one began.
    windows: u32,
    measuring: bool,
    measured: u32,
    sum: f64,
    /// Windows in a row that ended at the least limit.
    stuck: u32,
}

impl Baseline {
    pub(crate) fn new() -> Self {
        Self { latency: None, windows: 0, measuring: true, measured: 0, sum: 0.0, stuck: 0 }
    }

    pub(crate) fn is_measuring(&self) -> bool {
        self.measuring
    }

    /// Is told where a window left the limit.
    pub(crate) fn settled(&mut self, at_the_least: bool) {
        self.stuck = if at_the_least { self.stuck + 1 } else { 0 };
    }

    /// Looks at a window: the baseline, or nothing while it is being measured at `least` calls.
    pub(crate) fn observe(&mut self, sample: &Sample, least: u32) -> Option<f64> {
        self.windows += 1;
        if !self.measuring {
            if self.windows >= EVERY || self.stuck >= STUCK {
                (self.measuring, self.windows, self.measured, self.sum, self.stuck) = (true, 0, 0, 0.0, 0);
                return None;
            }
            return self.latency;
        }
        self.add(sample, least);
        if self.measured < MEASURED && self.windows < PATIENCE {
            return None;
        }
        self.end();
        self.measuring = self.latency.is_none();
        self.latency
    }

    /// Ends a measurement whose window does not fill, with what has been seen of it. Without any the last baseline stays,
    /// and if there is none, none is known until the next measurement.
    pub(crate) fn give_up(&mut self, seen: Option<&Sample>, least: u32) {
        if self.measuring {
            if let Some(sample) = seen {
                self.add(sample, least);
            }
            self.end();
        }
    }

    fn add(&mut self, sample: &Sample, least: u32) {
        if sample.in_flight <= least {
            self.measured += 1;
            self.sum += sample.latency.as_secs_f64();
        }
    }

    fn end(&mut self) {
        if self.measured > 0 {
            self.latency = Some((self.sum / f64::from(self.measured)).max(f64::MIN_POSITIVE));
        }
        (self.measuring, self.windows) = (false, 0);
    }
}
