//! A subscription: what is received from.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ring::{CUT, LIVE, Reader, Shared};
use super::topic::SubscriberState;

/// The most events taken under one lock.
const BATCH: u64 = 64;

/// What happens when a subscriber has more events waiting than it has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest waiting ones are lost to it; it is told how many. Nobody else notices.
    #[default]
    DropOldest,
    /// It is cut off and told so, rather than going on with a gap. Nobody else notices.
    Disconnect,
    /// Publishers wait for it, each for at most so long; then it is cut off. Nothing is lost before that.
    Block(Duration),
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    #[default]
    Now,
    /// With at most so many of the remembered ones, the newest of them.
    Replay(usize),
    /// With the event of this number, to go on where an earlier subscription ended.
    At(u64),
}

/// How to subscribe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct SubscribeOptions {
    pub(super) overflow: Overflow,
    pub(super) start: Start,
    pub(super) room: Option<usize>,
}

impl SubscribeOptions {
    /// The defaults: from now on, losing the oldest, with the topic's whole capacity as room.
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens when it falls too far behind.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Where it begins.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How many events may wait for it, at most the topic's capacity.
    pub fn room(mut self, room: usize) -> Self {
        self.room = Some(room);
        self
    }
}

/// An event and its number within the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<T> {
    /// Counts up from 0 within the topic, without gaps.
    pub number: u64,
    /// What was published.
    pub event: T,
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// It fell behind and lost so many events; the next call goes on after them.
    #[error("{0} events were lost by falling behind")]
    Lagged(u64),
    /// It fell behind and was cut off.
    #[error("the subscriber fell behind and was cut off")]
    Cut,
    /// The topic is closed and everything was received.
    #[error("the topic is closed")]
    Closed,
}

/// One subscriber's view of a topic. Dropping it unsubscribes.
pub struct Subscription<T> {
    shared: Arc<Shared<T>>,
    reader: Arc<Reader>,
    /// Taken from the ring and not yet handed out.
    taken: VecDeque<T>,
    /// The number of the first of them.
    next: u64,
}

impl<T: Clone + Send + 'static> Subscription<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, reader: Arc<Reader>, next: u64) -> Self {
        Self { shared, reader, taken: VecDeque::new(), next }
    }

    /// The name it subscribed by.
    pub fn name(&self) -> &str {
        &self.reader.name
    }

    /// The number of the event it receives next: what [`Start::At`] takes.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next event. Cancel-safe: nothing is lost by dropping the future.
    ///
    /// Asking for an event says that the ones before it are done with, which is what [`Overflow::Block`] waits for; a
    /// subscriber is counted in small batches, so it may appear a few events slower than it is.
    ///
    /// # Errors
    /// [`RecvError`] says what was missed; after `Lagged` it goes on.
    pub async fn recv(&mut self) -> Result<Delivery<T>, RecvError> {
        loop {
            if let Some(delivery) = self.hand_out() {
                return Ok(delivery);
            }
            let shared = Arc::clone(&self.shared);
            // Made before looking, so that what comes in between is noticed.
            let came = shared.came.notified();
            if self.take(true)? {
                continue;
            }
            came.await;
        }
    }

    /// The next event, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Delivery<T>>, RecvError> {
        if self.taken.is_empty() {
            self.take(false)?;
        }
        Ok(self.hand_out())
    }

    fn hand_out(&mut self) -> Option<Delivery<T>> {
        let event = self.taken.pop_front()?;
        let number = self.next;
        self.next += 1;
        Some(Delivery { number, event })
    }

    /// Takes what is there; `sleep` announces that the caller sleeps when nothing is.
    fn take(&mut self, sleep: bool) -> Result<bool, RecvError> {
        if self.reader.state() != LIVE {
            return Err(RecvError::Cut);
        }
        let mut ring = self.shared.lock();
        self.reader.cursor.store(self.next, Ordering::Release);
        self.shared.made_room(&mut ring);
        if self.next >= ring.head {
            if ring.closed {
                return Err(RecvError::Closed);
            }
            ring.asleep += usize::from(sleep);
            return Ok(false);
        }
        let oldest = ring.oldest().max(ring.head.saturating_sub(self.reader.room));
        if self.next < oldest {
            let lost = oldest - self.next;
            self.reader.lost.fetch_add(lost, Ordering::Relaxed);
            if self.reader.overflow != Overflow::DropOldest {
                drop(ring);
                self.shared.leave(&self.reader, CUT);
                tracing::warn!(
                    subscriber = self.reader.name,
                    lost,
                    "a subscriber fell behind and was cut off"
                );
                return Err(RecvError::Cut);
            }
            self.next = oldest;
            self.reader.cursor.store(oldest, Ordering::Release);
            tracing::warn!(subscriber = self.reader.name, lost, "a subscriber fell behind and lost events");
            return Err(RecvError::Lagged(lost));
        }
        let batch = (self.reader.room / 4).clamp(1, BATCH).min(ring.head - self.next);
        let from = usize::try_from(self.next - ring.oldest()).unwrap_or(usize::MAX);
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        self.taken.extend(ring.slots.iter().skip(from).take(batch).cloned());
        Ok(true)
    }

    pub(super) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let died = std::thread::panicking();
        if self.shared.leave(&self.reader, SubscriberState::on_drop(died)) && died {
            tracing::error!(subscriber = self.reader.name, "a subscriber was lost in a panic");
        }
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("name", &self.reader.name)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
