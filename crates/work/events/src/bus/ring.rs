//! The ring behind a topic and the book about who has read how far.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::subscription::Overflow;

/// How many subscribers that have gone are still listed.
const REMEMBERED: usize = 64;

pub(super) const LIVE: u8 = 0;
pub(super) const CUT: u8 = 1;
pub(super) const CLOSED: u8 = 2;
pub(super) const DIED: u8 = 3;

/// What is known of one subscriber.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) overflow: Overflow,
    /// How many events may wait for it.
    pub(super) room: u64,
    /// The first event it has not finished with.
    pub(super) cursor: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) handled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) state: AtomicU8,
}

impl Reader {
    pub(super) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Ends it, unless it has ended in another way before.
    pub(super) fn end(&self, state: u8) -> bool {
        self.state.compare_exchange(LIVE, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn blocks(&self) -> bool {
        matches!(self.overflow, Overflow::Block(_)) && self.state() == LIVE
    }
}

pub(super) struct Ring<T> {
    /// The events still known, oldest first.
    pub(super) slots: VecDeque<T>,
    /// The number the next event gets.
    pub(super) head: u64,
    /// Below which head nobody has to be waited for; found anew when it is reached.
    gate: u64,
    pub(super) readers: Vec<Arc<Reader>>,
    /// Subscribers that sleep until something comes.
    pub(super) asleep: usize,
    /// Publishers that sleep until there is room.
    blocked: usize,
    pub(super) closed: bool,
}

pub(super) struct Shared<T> {
    ring: Mutex<Ring<T>>,
    pub(super) capacity: usize,
    pub(super) max_subscribers: usize,
    pub(super) came: Notify,
    pub(super) room: Notify,
}

/// Why an event was not taken; it is handed back.
pub(super) enum NotPushed<T> {
    Closed,
    Full(T, Arc<Reader>),
}

impl<T> Shared<T> {
    pub(super) fn new(capacity: usize, max_subscribers: usize) -> Self {
        let ring = Ring {
            slots: VecDeque::with_capacity(capacity.min(1024)),
            head: 0,
            gate: u64::MAX,
            readers: Vec::new(),
            asleep: 0,
            blocked: 0,
            closed: false,
        };
        Self { ring: Mutex::new(ring), capacity, max_subscribers, came: Notify::new(), room: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ring<T>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one event and says its number. `wait` announces that the caller sleeps on `room` when it is full.
    pub(super) fn push(&self, event: T, wait: bool) -> Result<u64, NotPushed<T>> {
        let mut ring = self.lock();
        if ring.closed {
            return Err(NotPushed::Closed);
        }
        if ring.head >= ring.gate
            && let Some(reader) = ring.look_for_room()
        {
            ring.blocked += usize::from(wait);
            return Err(NotPushed::Full(event, reader));
        }
        let number = ring.head;
        ring.head += 1;
        // Dropped after the lock is given back: it may be large.
        let forgotten = if ring.slots.len() >= self.capacity { ring.slots.pop_front() } else { None };
        ring.slots.push_back(event);
        let wake = std::mem::take(&mut ring.asleep) > 0;
        drop(ring);
        if wake {
            self.came.notify_waiters();
        }
        drop(forgotten);
        Ok(number)
    }

    /// Says that a reader has moved on, under the lock it moved on with.
    pub(super) fn made_room(&self, ring: &mut Ring<T>) {
        if std::mem::take(&mut ring.blocked) > 0 {
            self.room.notify_waiters();
        }
    }

    /// Takes a reader off the ring; publishers that wait for it need not any more.
    pub(super) fn leave(&self, reader: &Arc<Reader>, state: u8) -> bool {
        let ended = reader.end(state);
        let mut ring = self.lock();
        ring.forget_ended();
        ring.gate = 0;
        self.made_room(&mut ring);
        ended
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_waiters();
        self.room.notify_waiters();
    }
}

impl<T> Ring<T> {
    /// The number of the oldest event still known.
    pub(super) fn oldest(&self) -> u64 {
        self.head - self.slots.len() as u64
    }

    pub(super) fn join(&mut self, reader: Arc<Reader>) {
        self.readers.push(reader);
        self.gate = 0;
    }

    /// Moves the gate to where the slowest blocking reader ends; names that reader when it is here already.
    fn look_for_room(&mut self) -> Option<Arc<Reader>> {
        let ends = |reader: &&Arc<Reader>| reader.cursor.load(Ordering::Acquire).saturating_add(reader.room);
        let slowest = self.readers.iter().filter(|reader| reader.blocks()).min_by_key(ends);
        self.gate = slowest.as_ref().map_or(u64::MAX, ends);
        slowest.filter(|_| self.head >= self.gate).cloned()
    }

    fn forget_ended(&mut self) {
        let ended = self.readers.iter().filter(|reader| reader.state() != LIVE).count();
        let mut surplus = ended.saturating_sub(REMEMBERED);
        self.readers.retain(|reader| {
            let drop = surplus > 0 && reader.state() != LIVE;
            surplus -= usize::from(drop);
            !drop
        });
    }
}
