//! What was granted in a busy period, so that tokens can be given back exactly.
//!
//! A bucket's word forgets how it came to its debt, and without that, giving back tokens which time has already paid
//! for would grant them twice. By the max-plus form of the algorithm, after arrivals at `a₁ ≤ a₂ ≤ …` of `cᵢ` the
//! bucket is full again at `maxⱼ (aⱼ + Σᵢ≥ⱼ cᵢ)`: taking tokens back is lowering one `cᵢ` and computing it anew. Arrivals
//! are kept in bins of a 32nd of the bucket, each counted as if it came at the bin's end, so the result is never too
//! low and at most a 32nd of the bucket too high.

use std::collections::VecDeque;

const BINS: usize = 64;
const BINS_PER_FILL: u64 = 32;

/// The grants of a bucket since it was last full, the oldest of them merged.
#[derive(Debug)]
pub(crate) struct History {
    began: u64,
    /// When the bucket would be full again by what is no longer kept apart.
    base: u64,
    bins: VecDeque<Bin>,
    width: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bin {
    from: u64,
    last: u64,
    granted: u64,
}

impl History {
    /// A history that begins now with a bucket that is full again at `full_at`.
    pub(crate) fn new(now: u64, full_at: u64, tolerance: u64) -> Self {
        let width = (tolerance / BINS_PER_FILL).max(1);
        Self { began: now, base: full_at, bins: VecDeque::new(), width }
    }

    /// Notes what was granted now.
    pub(crate) fn grant(&mut self, now: u64, nanos: u64) {
        match self.bins.back_mut() {
            Some(bin) if now < bin.from + self.width => {
                bin.last = bin.last.max(now);
                bin.granted += nanos;
            }
            _ => self.bins.push_back(Bin { from: now, last: now, granted: nanos }),
        }
        if self.bins.len() > BINS
            && let Some(oldest) = self.bins.pop_front()
        {
            self.base = self.base.max(oldest.last) + oldest.granted;
        }
    }

    /// Takes back part of what was granted at `at` and says when the bucket would be full again then. `None` when
    /// that was before this busy period, or too long ago to be known.
    pub(crate) fn give_back(&mut self, at: u64, nanos: u64) -> Option<u64> {
        let bin = self.bins.iter_mut().rev().find(|bin| bin.from <= at).filter(|_| at >= self.began)?;
        bin.granted = bin.granted.saturating_sub(nanos);
        Some(self.bins.iter().fold(self.base, |full_at, bin| full_at.max(bin.last) + bin.granted))
    }
}
