//! What the calls of a window took, gathered without locks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::algorithm::Sample;

/// Sums of the window that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Window {
    nanos: AtomicU64,
    calls: AtomicU32,
    in_flight: AtomicU32,
    dropped: AtomicBool,
}

impl Window {
    /// A call took so long.
    #[inline]
    pub(crate) fn add(&self, nanos: u64) {
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ended, measured or not, that saw so many under way.
    #[inline]
    pub(crate) fn saw(&self, in_flight: u32, dropped: bool) {
        // Mostly smaller already: a load does not take the line from the other processors.
        if self.in_flight.load(Ordering::Relaxed) < in_flight {
            self.in_flight.fetch_max(in_flight, Ordering::Relaxed);
        }
        if dropped {
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    /// How many calls were measured.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What has been gathered so far, if anything has.
    pub(crate) fn so_far(&self) -> Option<Sample> {
        let nanos = self.nanos.load(Ordering::Relaxed).checked_div(u64::from(self.calls()))?;
        Some(Sample {
            latency: Duration::from_nanos(nanos),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        })
    }

    /// What has been gathered, and of how many measured calls; the window begins anew. A call that is just being added may be counted in part in each:
    /// that moves an average by less than its share.
    pub(crate) fn take(&self) -> Option<(u32, Sample)> {
        let calls = self.calls.swap(0, Ordering::Relaxed);
        let nanos = self.nanos.swap(0, Ordering::Relaxed);
        let in_flight = self.in_flight.swap(0, Ordering::Relaxed);
        let dropped = self.dropped.swap(false, Ordering::Relaxed);
        let latency = Duration::from_nanos(nanos.checked_div(u64::from(calls))?);
        Some((calls, Sample { latency, in_flight, dropped }))
    }
}
