//! The calls of the last time, in ten buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::breaker::window::{Mark, Totals};

const BUCKETS: usize = 10;
const COUNT: u64 = (1 << 28) - 1;

/// Ten buckets of a tenth of the window each; what they hold is summed in constant time.
///
/// A bucket is emptied before its time is announced, so that no mark is lost when they turn. Each word carries the
/// low 8 bits of its generation, and a mark of another is not counted.
#[derive(Debug)]
pub(crate) struct LastTime {
    width: u64,
    /// The tenth that is being filled, counted from the start of time.
    present: AtomicU64,
    buckets: [Bucket; BUCKETS],
    turning: Mutex<()>,
}

/// Generation (8 bits), calls (28), failed (28); and generation (8), slow (56).
#[derive(Debug, Default)]
struct Bucket {
    calls: AtomicU64,
    slow: AtomicU64,
}

impl LastTime {
    pub(crate) fn new(window: Duration) -> Self {
        let width = u64::try_from(window.as_nanos() / BUCKETS as u128).unwrap_or(u64::MAX).max(1);
        let this = Self {
            width,
            present: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| Bucket::default()),
            turning: Mutex::default(),
        };
        this.reset(1);
        this
    }

    pub(crate) fn record(&self, generation: u16, now: u64, mark: Mark) -> Option<Totals> {
        let present = self.turn(now);
        let bucket = self.bucket(present)?;
        let own = stamp(generation);
        let failed = u64::from(mark.failed);
        let full = |word: u64| (word >> 28) & COUNT == COUNT;
        // A bucket that holds 268 million calls takes no more: its shares are told by those.
        let add = |word: u64| {
            (word & !(COUNT << 28 | COUNT) == own)
                .then(|| if full(word) { word } else { word + (1 << 28) + failed })
        };
        bucket.calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        if mark.slow {
            let add = |word: u64| (word & (0xff << 56) == own).then(|| word + 1);
            let _ = bucket.slow.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        }
        Some(self.sum(generation))
    }

    pub(crate) fn totals(&self, now: u64) -> Totals {
        let present = self.turn(now);
        let generation = self.bucket(present).map_or(0, |bucket| bucket.calls.load(Ordering::Acquire) >> 56);
        self.sum(u16::try_from(generation).unwrap_or_default())
    }

    pub(crate) fn reset(&self, generation: u16) {
        for bucket in &self.buckets {
            bucket.calls.store(stamp(generation), Ordering::Release);
            bucket.slow.store(stamp(generation), Ordering::Release);
        }
    }

    /// Turns to the tenth that `now` lies in and says which it is.
    fn turn(&self, now: u64) -> u64 {
        let (wanted, present) = (now / self.width, self.present.load(Ordering::Acquire));
        if wanted <= present { present } else { self.turn_to(wanted) }
    }

    #[cold]
    fn turn_to(&self, wanted: u64) -> u64 {
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.present.load(Ordering::Acquire);
        if wanted <= present {
            return present;
        }
        // After a pause of more than the window every bucket is emptied once.
        for passed in (present + 1..=wanted).rev().take(self.buckets.len()) {
            if let Some(bucket) = self.bucket(passed) {
                bucket.calls.fetch_and(0xff << 56, Ordering::AcqRel);
                bucket.slow.fetch_and(0xff << 56, Ordering::AcqRel);
            }
        }
        self.present.store(wanted, Ordering::Release);
        wanted
    }

    fn bucket(&self, tenth: u64) -> Option<&Bucket> {
        self.buckets.get(usize::try_from(tenth % BUCKETS as u64).unwrap_or_default())
    }

    fn sum(&self, generation: u16) -> Totals {
        let own = stamp(generation) >> 56;
        let mut totals = Totals::default();
        for bucket in &self.buckets {
            let (calls, slow) = (bucket.calls.load(Ordering::Acquire), bucket.slow.load(Ordering::Acquire));
            if calls >> 56 == own {
                totals.calls += (calls >> 28) & COUNT;
                totals.failed += calls & COUNT;
            }
            if slow >> 56 == own {
                totals.slow += slow & ((1 << 56) - 1);
            }
        }
        totals
    }
}

fn stamp(generation: u16) -> u64 {
    u64::from(generation & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_takes_no_more_and_stays_in_its_generation() {
        let window = LastTime::new(Duration::from_hours(24));
        window.buckets[0].calls.store(stamp(1) | COUNT << 28 | 7, Ordering::Release);
        for _ in 0..2 {
            let totals = window.record(1, 0, Mark { failed: true, slow: false });
            assert_eq!(totals, Some(Totals { calls: COUNT, failed: 7, slow: 0 }));
        }
    }
}
