//! The last so many calls: a ring of marks, and their sums in one word.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::breaker::window::{Mark, Totals};

/// A true ring: the oldest mark leaves when a new one comes, however long the breaker has been closed.
///
/// Each slot carries the generation its mark was made in, and so does the word of sums. A mark is added to the sums before
/// it is put into its slot, and taken from them after it has left it, each only if it belongs to their generation: the sums
/// never drift from the slots, and are never less than what the slots hold.
#[derive(Debug)]
pub(crate) struct LastCalls {
    slots: Box<[AtomicU32]>,
    next: AtomicU64,
    /// Generation, calls, failed, slow: 16 bits each. There may be more calls than slots by those that are just being
    /// recorded, one a thread.
    sums: AtomicU64,
}

const FAILED: u32 = 1;
const SLOW: u32 = 2;

impl LastCalls {
    pub(crate) fn new(calls: u32) -> Self {
        Self {
            slots: (0..calls.max(1)).map(|_| AtomicU32::new(0)).collect(),
            next: AtomicU64::new(0),
            sums: AtomicU64::new(1 << 48),
        }
    }

    pub(crate) fn record(&self, generation: u16, mark: Mark) -> Option<Totals> {
        // A mark that comes too late must not push out one that counts.
        of(generation, self.sums.load(Ordering::Acquire))?;
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len() as u64;
        let slot = self.slots.get(usize::try_from(at).unwrap_or_default())?;
        let new = u32::from(generation) << 2
            | if mark.failed { FAILED } else { 0 }
            | if mark.slow { SLOW } else { 0 };
        // Mostly the same as a hundred calls ago: then nothing changes, and nobody's cache is disturbed.
        if slot.load(Ordering::Relaxed) == new {
            return of(generation, self.sums.load(Ordering::Acquire));
        }
        // Counted before it can be seen, so that whoever pushes it out takes away what is there.
        self.change(|sums| of(generation, sums).map(|_| sums + parts(new)))?;
        let old = slot.swap(new, Ordering::AcqRel);
        self.change(|sums| Some(if u64::from(old >> 2) == sums >> 48 { sums - parts(old) } else { sums }))
            .and_then(|sums| of(generation, sums))
    }

    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut sums = self.sums.load(Ordering::Acquire);
        loop {
            let next = to(sums)?;
            if next == sums {
                return Some(next);
            }
            match self.sums.compare_exchange_weak(sums, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next),
                Err(changed) => sums = changed,
            }
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        totals(self.sums.load(Ordering::Acquire))
    }

    pub(crate) fn reset(&self, generation: u16) {
        // The numbers begin anew: what is left from the last time round must not be taken for what is counted now.
        if generation == 1 {
            self.slots.iter().for_each(|slot| slot.store(0, Ordering::Release));
        }
        self.sums.store(u64::from(generation) << 48, Ordering::Release);
    }
}

/// What a slot adds to the sums.
fn parts(slot: u32) -> u64 {
    let bit = |flag| u64::from(slot & flag != 0);
    1 << 32 | bit(FAILED) << 16 | bit(SLOW)
}

/// The totals, if they are still of this generation.
fn of(generation: u16, sums: u64) -> Option<Totals> {
    (sums >> 48 == u64::from(generation)).then(|| totals(sums))
}

fn totals(sums: u64) -> Totals {
    Totals { calls: (sums >> 32) & 0xffff, failed: (sums >> 16) & 0xffff, slow: sums & 0xffff }
}
