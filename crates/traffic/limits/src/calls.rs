//! How many calls are under way and how many have begun, in one word: a call begins and ends with one instruction each.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of a rush of calls, one in so many is measured.
pub(crate) const ONE_IN: u32 = 8;

/// One call more that has begun, in the upper half.
const BEGUN: u64 = 1 << 32;

#[derive(Debug, Default)]
pub(crate) struct Calls(AtomicU64);

/// A call that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// How many are under way, this one among them.
    pub(crate) under_way: u32,
    number: u32,
}

impl Calls {
    /// Begins a call if fewer than so many are under way.
    #[inline]
    pub(crate) fn begin(&self, limit: u32) -> Option<Begun> {
        let one_more = |calls: u64| (low(calls) < limit).then_some(calls.wrapping_add(BEGUN + 1));
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Begun { under_way: low(before) + 1, number: low(before >> 32) })
    }

    /// Ends one that began.
    #[inline]
    pub(crate) fn end(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn under_way(&self) -> u32 {
        low(self.0.load(Ordering::Relaxed))
    }
}

impl Begun {
    /// Whether it is one of those of a rush that are measured. A hash of its number picks them: whatever the rhythm in
    /// which callers take turns, each gets its share.
    ///
    /// One multiplication alone, by the golden ratio, falls in step with callers who take turns in a Fibonacci number.
    #[inline]
    pub(crate) const fn stands_for_others(self) -> bool {
        let once = self.number.wrapping_mul(0x9e37_79b9);
        (once ^ (once >> 15)).wrapping_mul(0x85eb_ca6b) <= u32::MAX / ONE_IN
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(calls: u64) -> u32 {
    calls as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_begin_than_may_and_what_has_begun_does_not_spill_over() {
        let calls = Calls(AtomicU64::new(u64::from(u32::MAX) << 32));
        assert_eq!(calls.begin(2).unwrap().under_way, 1);
        assert_eq!(calls.begin(2).unwrap().under_way, 2);
        assert!(calls.begin(2).is_none());
        calls.end();
        assert_eq!(calls.under_way(), 1);
        assert_eq!(calls.begin(2).unwrap().number, 1, "the count has gone round");
        calls.end();
        calls.end();
        assert_eq!(calls.under_way(), 0);
    }

    #[test]
    fn an_eighth_of_every_rhythm_stands_for_the_rest() {
        // Callers who take turns, from 1 to 1,000 of them: of each one's 8,000 calls an eighth is measured, within five
        // standard deviations of chance.
        for turns in 1..=1_000_u32 {
            for caller in [0, turns / 2, turns - 1] {
                let own = (0..8_000_u32).map(|nth| Begun { under_way: 1, number: nth * turns + caller });
                let measured = own.filter(|begun| begun.stands_for_others()).count();
                assert!((852..=1_148).contains(&measured), "{measured} of 8,000 with {turns} in turn");
            }
        }
    }
}
