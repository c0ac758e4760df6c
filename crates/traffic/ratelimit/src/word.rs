//! One bucket in one atomic word, by the generic cell rate algorithm.
//!
//! GCRA (ITU-T I.371 annex A) keeps one number: the *theoretical arrival time*, when the bucket will be full again.
//! Taking `n` tokens moves it `n` intervals into the future; a request is refused when it would lie further ahead of
//! now than the bucket is deep. The top two bits of the word are flags, so a time has 62 bits: 146 years of nanoseconds.

use crate::sync::{AtomicU64, Ordering, pause};

/// Somebody holds the word and will write it in a moment.
pub(crate) const BUSY: u64 = 1 << 63;
/// Tokens of the present busy period may be given back: nobody may pass over its end unseen.
pub(crate) const RESERVED: u64 = 1 << 62;
/// No bucket is ever further from full than this, however much more was used than reserved: 36 years.
pub(crate) const MOST_DEBT: u64 = 1 << 60;
const FLAGS: u64 = BUSY | RESERVED;

/// The word's new time, or how long until it would be granted.
pub(crate) fn admit(arrival: u64, now: u64, increment: u64, tolerance: u64) -> Result<u64, u64> {
    let next = arrival.max(now) + increment;
    let ahead = next - now;
    if ahead > tolerance { Err(ahead - tolerance) } else { Ok(next) }
}

/// A word of a bucket.
#[derive(Debug, Default)]
pub(crate) struct Word(AtomicU64);

impl Word {
    /// The word without looking at its flags.
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Replaces an unflagged time by another, if nobody has changed it since; else says what is there.
    #[inline]
    pub(crate) fn swap(&self, seen: u64, next: u64) -> Result<(), u64> {
        self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    #[inline]
    pub(crate) fn replace(&self, seen: u64, next: u64) -> bool {
        self.swap(seen, next).is_ok()
    }

    /// Takes the word for a moment; others wait. Nothing is done while it is held that waits for long.
    pub(crate) fn hold(&self) -> Held<'_> {
        let mut tries = 0;
        loop {
            let seen = self.load();
            if seen & BUSY == 0 && self.replace(seen, seen | BUSY) {
                return Held { word: self, value: seen };
            }
            pause(&mut tries);
        }
    }

    /// Takes the word if it can be had at once and `wanted` says so.
    pub(crate) fn hold_if(&self, wanted: impl Fn(u64) -> bool) -> Option<Held<'_>> {
        let seen = self.load();
        let free = seen & BUSY == 0 && wanted(time(seen));
        // Made only once it is held: letting a `Held` go writes the word.
        (free && self.replace(seen, seen | BUSY)).then(|| Held { word: self, value: seen })
    }
}

/// The time in a word.
pub(crate) fn time(word: u64) -> u64 {
    word & !FLAGS
}

/// Whether a word is plain: neither held nor reserved from.
pub(crate) fn is_plain(word: u64) -> bool {
    word & FLAGS == 0
}

/// A held word; letting it go writes its value.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    word: &'a Word,
    value: u64,
}

impl Held<'_> {
    pub(crate) fn time(&self) -> u64 {
        time(self.value)
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.value & RESERVED != 0
    }

    pub(crate) fn set(&mut self, time: u64, reserved: bool) {
        self.value = if reserved { time | RESERVED } else { time };
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.word.0.store(self.value, Ordering::Release);
    }
}
