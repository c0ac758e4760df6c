//! A bounded table of buckets without keys: a slot is a key's tag and its word, sixteen bytes.
//!
//! A key is known by 47 bits of a keyed hash beside the place the other bits send it to, so two keys share a bucket
//! about once in 10^13 look-ups; sharing makes a limit stricter, never looser. A slot is given to another key only
//! when its bucket is full again, for then forgetting it changes nothing. Slots never become empty again, and a new
//! key takes the first empty one of its window, so a search may stop at an empty slot.

use std::collections::HashMap;
use std::sync::PoisonError;

use crate::history::History;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, pause};
use crate::word::{BUSY, Held, Word, time};

/// Slots in a cache line, lines in a window, and how many of them are asked for at once behind the home line.
// Loom explores every order of events, so it gets the smallest table there is.
const IN_LINE: usize = if cfg!(runtime_loom) { 1 } else { 4 };
const WINDOW: usize = if cfg!(runtime_loom) { 1 } else { 22 };
const GROUP: usize = 3;
/// Four slots for three keys: full, 87 keys of 100 are in their home line, all but 16 of 1,000 in the group behind it, and
/// five in a hundred thousand find no room.
const ROOM: [usize; 2] = [4, 3];
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
    changes: Box<[Changes]>,
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

/// How often slots of some lines went to another key or rate. Apart from the slots, for it is asked for by those who wait
/// for them.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Changes(AtomicU64);

/// A slot of a key's home line and its word.
#[derive(Clone, Copy)]
pub(crate) struct AtHome<'a> {
    slot: &'a Slot,
    pub(crate) word: u64,
    changes: &'a AtomicU64,
    /// How many there were before the slot was seen to be the key's.
    before: u64,
}

impl AtHome<'_> {
    /// Replaces the word; if somebody else did, the slot as it is then, unless its key or rate may be another by now.
    ///
    /// A swap that is lost has taken the line from all others, and is tried again before it is lost. So nothing is read
    /// from it in between: that no slot has changed hands is said elsewhere. One that does says so while its word is
    /// held, so whoever reads a word that came later finds it said, and who finds it said before finds the word held.
    #[inline]
    pub(crate) fn swap(self, next: u64) -> Result<(), Option<Self>> {
        let again =
            |word| (self.changes.load(Ordering::Acquire) == self.before).then_some(Self { word, ..self });
        self.slot.word.swap(self.word, next).map_err(again)
    }
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

    pub(crate) fn belongs_to(&self, hash: u64) -> bool {
        tag(self.key()) == tag_of(hash)
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
            changes: (0..STRIPES).map(|_| Changes::default()).collect(),
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

    /// The lines a key may be in, the home line first.
    fn window(&self, hash: u64) -> (usize, &[Line]) {
        let home = self.home(hash);
        (home, self.lines.get(home..home + WINDOW).unwrap_or_default())
    }

    /// The slot that has this key, tag and rate code alike, if it is in its home line: so it is seven times of eight.
    #[inline]
    pub(crate) fn at_home(&self, hash: u64, key: u64) -> Option<AtHome<'_>> {
        let home = self.home(hash);
        let changes = self.changes(home)?;
        let before = changes.load(Ordering::Acquire);
        let (slot, word) = self.lines.get(home)?.matching(key)?;
        Some(AtHome { slot, word, changes, before })
    }

    #[inline]
    fn changes(&self, line: usize) -> Option<&AtomicU64> {
        self.changes.get(line % STRIPES).map(|Changes(count)| count)
    }

    /// Writes whose a held slot is from now on, and under which rate.
    fn rename(&self, index: usize, slot: &Slot, key: u64) {
        if let Some(changes) = self.changes(index / IN_LINE) {
            changes.fetch_add(1, Ordering::Release);
        }
        slot.key.store(key, Ordering::Release);
    }

    /// Writes the rate code of a held slot.
    pub(crate) fn recode(&self, found: Found<'_>, code: u16) {
        self.rename(found.index, found.slot, tag(found.slot.key()) << 16 | u64::from(code));
    }

    /// The key's slot, if it has one.
    pub(crate) fn find(&self, hash: u64) -> Option<Found<'_>> {
        let (home, lines) = self.window(hash);
        let (own, others) = lines.split_first()?;
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
        // One at a time for a home, so that no key ever has two slots.
        let _turn = lock(&self.inserting, self.home(hash));
        let mut tries = 0;
        loop {
            if let Some(found) = self.find(hash) {
                return Ok((found, None));
            }
            let (index, slot) = self.candidate(hash, now)?;
            let Some(mut held) = slot.word.hold_if(|free_at| free_at <= now) else {
                pause(&mut tries);
                continue;
            };
            self.drop_history(index, &held);
            self.rename(index, slot, key_of(hash, rate_code));
            // A new value, so that nobody who saw the old one can write over it; one nanosecond is no debt. And not before
            // now, or the next of several new keys would take the slot again.
            let fresh = (held.time() + 1).max(now).max(inherited());
            held.set(fresh, false);
            return Ok((Found { slot, index, word: fresh, code: rate_code }, Some(held)));
        }
    }

    /// The first empty slot of the window, or the one whose bucket has been full for longest.
    fn candidate(&self, hash: u64, now: u64) -> Result<(usize, &Slot), NoRoom> {
        let (mut best, mut until) = (None, u64::MAX);
        let (home, lines) = self.window(hash);
        for (nth, slot) in lines.iter().flat_map(|line| &line.0).enumerate() {
            let (index, word) = (home * IN_LINE + nth, slot.word.load());
            // Even one that another key is just taking: those who search see it empty and go no further.
            if slot.key() == 0 {
                return Ok((index, slot));
            }
            if word & BUSY == 0 && time(word) < until {
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

#[cfg(all(test, not(runtime_loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_goes_past_a_slot_that_is_just_being_taken() {
        let (table, now) = (Table::new(1000), 100);
        let home = table.home(7 << 56);
        // Another key has it and has not written its name yet: to those who search it is empty.
        let taken = table.lines[home].0[0].word.hold();
        let (index, slot) = table.candidate(7 << 56, now).unwrap();
        assert_eq!(index, home * IN_LINE);
        assert!(slot.word.hold_if(|free_at| free_at <= now).is_none());
        drop(taken);
    }

    #[test]
    fn a_key_whose_tag_bits_are_all_zero_is_found() {
        let table = Table::new(1000);
        for hash in [0, 7 << 56] {
            assert!(table.find(hash).is_none());
            drop(table.find_or_take(hash, 3, 100, || 0).unwrap());
            assert_eq!(table.find(hash).unwrap().code, 3);
            assert!(table.at_home(hash, key_of(hash, 3)).is_some());
        }
    }
}
