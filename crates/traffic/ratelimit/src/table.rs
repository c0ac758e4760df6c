//! A bounded table of buckets without keys: a slot is a key's tag and its word, sixteen bytes.
//!
//! A key is known by 47 bits of a keyed hash beside the place the other bits send it to, so two keys share a bucket
//! about once in 10^13 look-ups; sharing makes a limit stricter, never looser. A slot is given to another key only
//! when its bucket is full again, for then forgetting it changes nothing. Slots never become empty again, and a new
//! key takes the first empty one of its window, so a search may stop at an empty slot.

use std::collections::HashMap;
use std::sync::PoisonError;

use crate::history::History;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::word::{BUSY, Held, Word, time};

/// Slots in a cache line, lines in a window, and how many of them are asked for at once behind the home line.
// Loom explores every order of events, so it gets the smallest table there is.
const IN_LINE: usize = if cfg!(runtime_loom) { 1 } else { 4 };
const WINDOW: usize = if cfg!(runtime_loom) { 1 } else { 22 };
const GROUP: usize = 7;
/// Four slots for three keys: full, 87 keys of 100 are in their home line, all but three of 1,000 in the group behind it,
/// and five in a hundred thousand find no room.
const ROOM: [usize; 2] = [4, 3];
/// Spins that whoever lost a swap leaves the line to the one who won it.
const YIELD: usize = 4;
const STRIPES: usize = if cfg!(runtime_loom) { 1 } else { 64 };

/// A slot: tag and rate code of the key it belongs to, and the bucket.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    key: AtomicU64,
    pub(crate) word: Word,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Slot; IN_LINE]);

/// What was granted from each slot that tokens were reserved from.
type Histories = HashMap<usize, History>;

#[derive(Debug)]
pub(crate) struct Table {
    lines: Box<[Line]>,
    homes: u64,
    inserting: Box<[Mutex<()>]>,
    histories: Box<[Mutex<Histories>]>,
}

/// A slot as it was found, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) index: usize,
    /// The word as it was when the slot still belonged to the key.
    pub(crate) word: u64,
    /// The rate its debt was made under.
    pub(crate) code: u16,
}

/// Every slot a key could have is taken by one in debt; the first of them is free at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    pub(crate) until: u64,
}

impl Slot {
    /// The key's tag and rate code.
    pub(crate) fn key(&self) -> u64 {
        self.key.load(Ordering::Acquire)
    }

    /// The slot's word, if it is this key's.
    #[inline]
    fn read(&self, hash: u64, index: usize) -> Option<Found<'_>> {
        let word = self.word.load();
        // Only now is it certain that the word was this key's: a slot changes hands before its word does.
        let key = self.key();
        (tag(key) == tag_of(hash)).then_some(Found { slot: self, index, word, code: code(key) })
    }

    /// The slot and its word, if it says just this key.
    #[inline]
    fn read_as(&self, key: u64) -> Option<(&Self, u64)> {
        let word = self.word.load();
        (self.key() == key).then_some((self, word))
    }

    /// The same after a lost swap, a moment later: two that both go on at once take the line from each other at every
    /// step (Dice, Hendler and Mirsky, "Lightweight Contention Management for Efficient Compare-and-Swap Operations",
    /// 2013).
    #[inline(never)]
    pub(crate) fn read_again(&self, key: u64) -> Option<(&Self, u64)> {
        (0..YIELD).for_each(|_| std::hint::spin_loop());
        self.read_as(key)
    }

    pub(crate) fn belongs_to(&self, hash: u64) -> bool {
        tag(self.key()) == tag_of(hash)
    }

    /// Writes the rate code of a held slot.
    pub(crate) fn recode(&self, code: u16) {
        self.key.store(tag(self.key()) << 16 | u64::from(code), Ordering::Release);
    }

    pub(crate) fn code(&self) -> u16 {
        code(self.key())
    }
}

impl Line {
    /// The slot whose key says just this, tag and rate code, with its word.
    #[inline]
    fn matching(&self, key: u64) -> Option<(&Slot, u64)> {
        // All are compared before anything is decided: which one it is cannot be predicted.
        let mut at = IN_LINE;
        for (nth, slot) in self.0.iter().enumerate() {
            at = if slot.key.load(Ordering::Relaxed) == key { nth } else { at };
        }
        self.0.get(at)?.read_as(key)
    }
}

/// Never 0: that is an empty slot.
fn tag_of(hash: u64) -> u64 {
    hash & 0xffff_ffff_ffff | 1
}

/// What a slot says of whom it belongs to, and under which rate.
pub(crate) fn key_of(hash: u64, code: u16) -> u64 {
    tag_of(hash) << 16 | u64::from(code)
}

/// The slot of its home line that a key takes if it is free.
fn preferred(hash: u64) -> usize {
    usize::try_from(hash % IN_LINE as u64).unwrap_or_default()
}

fn tag(key: u64) -> u64 {
    key >> 16
}

#[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are what is wanted")]
fn code(key: u64) -> u16 {
    key as u16
}

impl Table {
    /// A table for so many keys in debt at once.
    pub(crate) fn new(keys: usize) -> Self {
        let [slots, per_keys] = ROOM;
        let homes = keys.saturating_mul(slots).div_ceil(per_keys * IN_LINE).max(1);
        Self {
            lines: (0..homes.saturating_add(WINDOW - 1)).map(|_| Line::default()).collect(),
            homes: homes as u64,
            inserting: (0..STRIPES).map(|_| Mutex::default()).collect(),
            histories: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }

    /// The smallest table there is.
    #[cfg(runtime_loom)]
    pub(crate) fn of_one_line() -> Self {
        Self::new(0)
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.lines.len() * IN_LINE
    }

    /// How many slots hold a bucket that is not full.
    pub(crate) fn in_debt(&self, now: u64) -> usize {
        self.lines.iter().flat_map(|line| &line.0).filter(|slot| time(slot.word.load()) > now).count()
    }

    fn home(&self, hash: u64) -> usize {
        // The high bits choose the line (Lemire, "Fast Random Integer Generation in an Interval", 2019).
        usize::try_from((u128::from(hash) * u128::from(self.homes)) >> 64).unwrap_or_default()
    }

    /// The slots a key may have, the one it prefers first.
    fn window(&self, home: usize, preferred: usize) -> impl Iterator<Item = (usize, &Slot)> {
        let slots = self.lines.iter().skip(home).take(WINDOW).flat_map(|line| &line.0);
        let slots = slots.enumerate().map(move |(nth, slot)| (home * IN_LINE + nth, slot));
        slots.clone().skip(preferred).take(1).chain(slots)
    }

    /// The slot that has this key, tag and rate code alike, if it is in its home line: so it is seven times of eight.
    #[inline]
    pub(crate) fn at_home(&self, hash: u64, key: u64) -> Option<(&Slot, u64)> {
        self.lines.get(self.home(hash))?.matching(key)
    }

    /// The key's slot, if it has one.
    pub(crate) fn find(&self, hash: u64) -> Option<Found<'_>> {
        let home = self.home(hash);
        let (own, others) = self.lines.get(home..home + WINDOW)?.split_first()?;
        let mut first = home * IN_LINE;
        // The lines of a group come from memory at the same time, where one after the other would wait for each.
        for lines in std::iter::once(std::slice::from_ref(own)).chain(others.chunks(GROUP)) {
            let (mut at, mut full) = (usize::MAX, true);
            for (nth, slot) in lines.iter().flat_map(|line| &line.0).enumerate() {
                let key = slot.key.load(Ordering::Relaxed);
                at = if tag(key) == tag_of(hash) { nth } else { at };
                full &= key != 0;
            }
            let slot = lines.get(at / IN_LINE).and_then(|line| line.0.get(at % IN_LINE));
            let found = slot.and_then(|slot| slot.read(hash, first + at));
            // Who comes first takes the first empty slot: behind one nobody has gone on.
            if found.is_some() || !full {
                return found;
            }
            first += lines.len() * IN_LINE;
        }
        None
    }

    /// The key's slot, or a new one that is still held, so that nobody takes it before it is used.
    ///
    /// A new slot begins with the debt `inherited` says, asked for only once the key can be found.
    pub(crate) fn find_or_take(
        &self,
        hash: u64,
        rate_code: u16,
        now: u64,
        inherited: impl Fn() -> u64,
    ) -> Result<(Found<'_>, Option<Held<'_>>), NoRoom> {
        match self.find(hash) {
            Some(found) => Ok((found, None)),
            None => self.take(hash, rate_code, now, inherited),
        }
    }

    #[cold]
    fn take(
        &self,
        hash: u64,
        rate_code: u16,
        now: u64,
        inherited: impl Fn() -> u64,
    ) -> Result<(Found<'_>, Option<Held<'_>>), NoRoom> {
        let home = self.home(hash);
        // One at a time for a home, so that no key ever has two slots.
        let _turn = lock(&self.inserting, home);
        loop {
            if let Some(found) = self.find(hash) {
                return Ok((found, None));
            }
            let (index, slot) = self.candidate(hash, home, now)?;
            let Some(mut held) = slot.word.hold_if(|free_at| free_at <= now) else { continue };
            self.drop_history(index, &held);
            slot.key.store(key_of(hash, rate_code), Ordering::Release);
            // A new value, so that nobody who saw the old one can write over it; one nanosecond is no debt.
            let fresh = (held.time() + 1).max(inherited());
            held.set(fresh, false);
            return Ok((Found { slot, index, word: fresh, code: rate_code }, Some(held)));
        }
    }

    /// An empty slot of the window, or the one whose bucket has been full for longest.
    fn candidate(&self, hash: u64, home: usize, now: u64) -> Result<(usize, &Slot), NoRoom> {
        let (mut best, mut until) = (None, u64::MAX);
        for (index, slot) in self.window(home, preferred(hash)) {
            let word = slot.word.load();
            if word & BUSY != 0 {
                continue;
            }
            if slot.key() == 0 {
                return Ok((index, slot));
            }
            if time(word) < until {
                (best, until) = (Some((index, slot)), time(word));
            }
        }
        best.filter(|_| until <= now).ok_or(NoRoom { until })
    }

    /// Works on the history of a slot, if it keeps one.
    pub(crate) fn with_history<T>(
        &self,
        index: usize,
        held: &Held<'_>,
        work: impl FnOnce(&mut History) -> T,
    ) -> Option<T> {
        if held.is_reserved() { lock(&self.histories, index).get_mut(&index).map(work) } else { None }
    }

    /// Has a slot keep a history from now on.
    pub(crate) fn keep_history(&self, index: usize, history: History) {
        lock(&self.histories, index).insert(index, history);
    }

    /// The slot's bucket was full: nothing of what came before matters any more.
    pub(crate) fn drop_history(&self, index: usize, held: &Held<'_>) {
        if held.is_reserved() {
            lock(&self.histories, index).remove(&index);
        }
    }
}

fn lock<T>(stripes: &[Mutex<T>], index: usize) -> MutexGuard<'_, T> {
    // There are always `STRIPES` of them.
    #[expect(clippy::indexing_slicing, reason = "the remainder is smaller than the number of stripes")]
    stripes[index % STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
}
