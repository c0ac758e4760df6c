//! The handles that count: lock-free, cheap to clone, safe to keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only rises.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<CounterCell>);

/// Whole and broken amounts apart, so that the common case is one `fetch_add`.
#[derive(Debug, Default)]
struct CounterCell {
    whole: AtomicU64,
    broken: AtomicU64,
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds a whole number; wraps after 2^64.
    pub fn add(&self, n: u64) {
        self.0.whole.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds a fraction, such as seconds. What is negative or not finite is ignored: a counter never falls.
    pub fn add_f64(&self, amount: f64) {
        if amount.is_finite() && amount > 0.0 {
            add_to(&self.0.broken, amount);
        }
    }

    /// The present value.
    #[expect(clippy::cast_precision_loss, reason = "the text format carries doubles")]
    pub fn value(&self) -> f64 {
        self.0.whole.load(Ordering::Relaxed) as f64 + f64::from_bits(self.0.broken.load(Ordering::Relaxed))
    }
}

/// A number that rises and falls.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1.0);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1.0);
    }

    /// Adds an amount, which may be negative.
    pub fn add(&self, amount: f64) {
        add_to(&self.0, amount);
    }

    /// Adds one until the guard is dropped: for things under way, cancelled ones included.
    #[must_use = "the gauge falls again when the guard is dropped"]
    pub fn track(&self) -> GaugeGuard {
        self.inc();
        GaugeGuard(self.clone())
    }

    /// The present value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Takes one from its [`Gauge`] when dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How observed values are distributed over fixed buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramCell>);

#[derive(Debug)]
struct HistogramCell {
    bounds: Arc<[f64]>,
    /// One per bound, and one for everything larger.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(HistogramCell { bounds, counts, sum: AtomicU64::new(0) }))
    }

    /// Counts a value. A value that is not a number is ignored.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let cell = &*self.0;
        // Bounds are inclusive (`le`). Counting the smaller ones has no branch to mispredict.
        let index = cell.bounds.iter().map(|bound| usize::from(*bound < value)).sum::<usize>();
        if let Some(count) = cell.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        add_to(&cell.sum, value);
    }

    /// Counts a duration, in seconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Ordering::Relaxed))
    }

    /// Each upper bound with the count of values at or below it; the last bound is infinite.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let mut below = 0;
        bounds
            .zip(&self.0.counts)
            .map(|(bound, count)| {
                below += count.load(Ordering::Relaxed);
                (bound, below)
            })
            .collect()
    }
}

fn add_to(cell: &AtomicU64, amount: f64) {
    let mut seen = cell.load(Ordering::Relaxed);
    loop {
        let next = (f64::from_bits(seen) + amount).to_bits();
        match cell.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}
