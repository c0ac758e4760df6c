//! From a token to its place: an open-addressed table that never changes after the container is built.

use super::token::Key;

/// Finds the slot of a key in one or two steps.
#[derive(Debug)]
pub(super) struct Table {
    cells: Box<[Option<(Key, u32)>]>,
    mask: usize,
}

impl Table {
    /// Numbers the keys in order. Of keys that are the same the first is found.
    pub(super) fn new(keys: impl ExactSizeIterator<Item = Key>) -> Self {
        // At most a quarter full: a miss or a collision is rare, and a hundred services still fit 16 KiB.
        let size = (keys.len() * 4).next_power_of_two().max(8);
        let mut table = Self { cells: vec![None; size].into_boxed_slice(), mask: size - 1 };
        for (slot, key) in (0u32..).zip(keys) {
            if table.find(key).is_none() {
                let mut at = table.start(key);
                while table.cells.get(at).is_some_and(Option::is_some) {
                    at = (at + 1) & table.mask;
                }
                if let Some(cell) = table.cells.get_mut(at) {
                    *cell = Some((key, slot));
                }
            }
        }
        table
    }

    pub(super) fn find(&self, key: Key) -> Option<usize> {
        let mut at = self.start(key);
        // Ends: at least three quarters of the cells are free.
        while let Some(Some((known, slot))) = self.cells.get(at) {
            if known.is(key) {
                return Some(*slot as usize);
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    #[expect(clippy::cast_possible_truncation, reason = "the mask keeps only low bits")]
    fn start(&self, key: Key) -> usize {
        (key.hash ^ (key.hash >> 32)) as usize & self.mask
    }
}
