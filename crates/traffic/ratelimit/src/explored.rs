//! Every order of events of two threads on one slot, by loom. `cargo xtask loom` runs these.

use loom::sync::Arc;
use loom::thread;

use crate::bucket::{Bucket, repriced};
use crate::rate::Rate;
use crate::table::{Table, key_of};
use crate::word::{Word, admit, is_plain, time};

const NOW: u64 = 100;

fn take(word: &Word, tolerance: u64) -> bool {
    loop {
        let seen = word.load();
        match admit(seen, NOW, 10, tolerance) {
            Ok(next) if word.replace(seen, next) => return true,
            Ok(_) => thread::yield_now(),
            Err(_) => return false,
        }
    }
}

#[test]
fn a_bucket_of_two_grants_two_of_three_whatever_the_order() {
    loom::model(|| {
        let word = Arc::new(Word::default());
        let racing = Arc::clone(&word);
        let other = thread::spawn(move || u8::from(take(&racing, 20)) + u8::from(take(&racing, 20)));
        let granted = u8::from(take(&word, 20)) + other.join().unwrap();
        assert_eq!((granted, word.load()), (2, NOW + 20));
    });
}

/// Takes one token of a key by the table, as the limiter does.
fn take_keyed(table: &Table, hash: u64, rate: Rate) -> bool {
    loop {
        let Ok((found, held)) = table.find_or_take(hash, rate.code(), NOW, || 0) else { return false };
        if let Some(mut held) = held {
            let next = admit(held.time(), NOW, rate.nanos(), rate.tolerance());
            next.iter().for_each(|next| held.set(*next, false));
            return next.is_ok();
        }
        if is_plain(found.word) {
            match admit(found.word, NOW, rate.nanos(), rate.tolerance()) {
                Ok(next) if found.slot.word.replace(found.word, next) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        thread::yield_now();
    }
}

#[test]
fn two_keys_that_want_the_same_slot_never_write_each_others_debt() {
    loom::model(|| {
        let (table, rate) = (Arc::new(Table::of_one_line()), Rate::per_second(1).unwrap());
        let racing = Arc::clone(&table);
        let other = thread::spawn(move || take_keyed(&racing, 2, rate));
        let granted = [take_keyed(&table, 1, rate), other.join().unwrap()];
        // One slot: whoever got it is in debt and keeps it, the other found no room.
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
        let holder = if granted[0] { 1 } else { 2 };
        let found = table.find(holder).expect("a key in debt keeps its slot");
        assert_eq!(time(found.word), NOW + rate.nanos());
    });
}

/// A table whose slot is key 1's, and its rate, which has room for two. Its bucket is full, so another may have the slot.
fn of_one_key() -> (Arc<Table>, Rate) {
    let (table, rate) = (Arc::new(Table::of_one_line()), Rate::per_second(1).unwrap().with_burst(2).unwrap());
    drop(table.find_or_take(1, rate.code(), NOW, || 0).unwrap());
    (table, rate)
}

/// Takes one token by the common path: the slot is where it was, swap after swap.
fn take_at_home(table: &Table, hash: u64, rate: Rate) -> bool {
    let mut at_home = table.at_home(hash, key_of(hash, rate.code()));
    while let Some(seen) = at_home
        && is_plain(seen.word)
        && let Ok(next) = admit(seen.word, NOW, rate.nanos(), rate.tolerance())
    {
        match seen.swap(next) {
            Ok(()) => return true,
            Err(again) => at_home = again,
        }
    }
    false
}

#[test]
fn a_lost_swap_is_never_won_on_a_slot_that_has_gone_to_another_key() {
    loom::model(|| {
        let (table, rate) = of_one_key();
        let racing = Arc::clone(&table);
        let other = thread::spawn(move || take_keyed(&racing, 2, rate));
        let granted = [take_at_home(&table, 1, rate), other.join().unwrap()];
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
        let holder = if granted[0] { 1 } else { 2 };
        let found = table.find(holder).expect("a key in debt keeps its slot");
        // One nanosecond more for who took the slot: its word must be a new one.
        assert_eq!(time(found.word), NOW + rate.nanos() + u64::from(granted[1]));
    });
}

#[test]
fn a_lost_swap_is_never_won_on_a_bucket_of_another_rate() {
    loom::model(|| {
        let (table, rate) = of_one_key();
        let slower = Rate::per_minute(1).unwrap();
        let racing = Arc::clone(&table);
        let other = thread::spawn(move || {
            let found = racing.find(1).unwrap();
            let mut bucket = Bucket { held: found.slot.word.hold(), found: Some(found), table: &racing };
            bucket.reprice(slower, NOW);
            bucket.debt(NOW)
        });
        let granted = take_at_home(&table, 1, rate);
        let debt = other.join().unwrap();
        // Either it came first and was repriced, or it found the other rate and left it alone.
        let owed = if granted { rate.nanos() } else { 0 };
        assert_eq!(debt, repriced(owed, rate.code(), slower));
    });
}

#[test]
fn two_threads_at_one_key_are_granted_what_it_holds() {
    loom::model(|| {
        let (table, rate) = of_one_key();
        let racing = Arc::clone(&table);
        let other = thread::spawn(move || take_at_home(&racing, 1, rate));
        assert_eq!([take_at_home(&table, 1, rate), other.join().unwrap()], [true, true]);
        assert_eq!(time(table.find(1).unwrap().word), NOW + 2 * rate.nanos());
    });
}

#[test]
fn one_key_never_has_two_slots() {
    loom::model(|| {
        let (table, rate) = (Arc::new(Table::of_one_line()), Rate::per_second(1).unwrap());
        let racing = Arc::clone(&table);
        let other = thread::spawn(move || take_keyed(&racing, 1, rate));
        let granted = [take_keyed(&table, 1, rate), other.join().unwrap()];
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "a burst of one");
    });
}

#[test]
fn a_held_word_is_written_by_nobody_else() {
    loom::model(|| {
        let word = Arc::new(Word::default());
        let racing = Arc::clone(&word);
        let other = thread::spawn(move || {
            let mut held = racing.hold();
            let next = held.time() + 1;
            held.set(next, false);
        });
        let mut held = word.hold();
        let next = held.time() + 1;
        held.set(next, false);
        drop(held);
        other.join().unwrap();
        assert_eq!(word.load(), 2);
    });
}
