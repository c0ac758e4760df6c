//! A topic: what is published into.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use runtime_kernel::SharedClock;

use super::ring::{CLOSED, CUT, DIED, LIVE, NotPushed, Reader, Shared};
use super::subscription::{Overflow, Start, SubscribeOptions, Subscription};
use crate::error::EventsError;

/// The limits of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicOptions {
    /// How many events it remembers: the replay window, and how far a subscriber may fall behind. 1024 unless told.
    pub capacity: usize,
    /// The most subscribers at once. 1024 unless told.
    pub max_subscribers: usize,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self { capacity: 1024, max_subscribers: 1024 }
    }
}

/// A bounded, ordered stream of events of one type within a process. Cheap to clone; all clones are one topic.
///
/// Every subscriber sees the events in one order, the order of their numbers. An event is cloned for each subscriber:
/// wrap what is large in an [`Arc`].
pub struct Topic<T> {
    shared: Arc<Shared<T>>,
    clock: SharedClock,
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), clock: Arc::clone(&self.clock) }
    }
}

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

impl<T: Clone + Send + 'static> Topic<T> {
    /// An empty topic.
    ///
    /// # Errors
    /// [`EventsError::Config`] for a capacity that is not 1 to 16 777 216.
    pub fn new(options: TopicOptions, clock: SharedClock) -> Result<Self, EventsError> {
        if !(1..=1 << 24).contains(&options.capacity) {
            return Err(EventsError::config("capacity", "must be 1 to 16777216"));
        }
        let shared = Arc::new(Shared::new(options.capacity, options.max_subscribers));
        Ok(Self { shared, clock })
    }

    /// Publishes without waiting and says the event's number.
    ///
    /// # Errors
    /// [`EventsError::Full`] when a subscriber with [`Overflow::Block`] has no room: the event is then published to
    /// nobody. [`EventsError::Closed`].
    pub fn try_publish(&self, event: T) -> Result<u64, EventsError> {
        self.shared.push(event, false).map_err(|refused| match refused {
            NotPushed::Closed => EventsError::Closed,
            NotPushed::Full(_, reader) => EventsError::Full(reader.name.clone()),
        })
    }

    /// Publishes, waits for subscribers with [`Overflow::Block`], and says the event's number.
    ///
    /// A subscriber is waited for as long as it declared; then it is cut off and told so, and the event is published
    /// to the others. Dropped while waiting, the event is published to nobody.
    ///
    /// # Errors
    /// [`EventsError::Closed`].
    pub async fn publish(&self, event: T) -> Result<u64, EventsError> {
        let mut event = event;
        let mut waited: Option<(Arc<Reader>, std::time::Instant)> = None;
        loop {
            // Made before looking, so that room made in between is noticed.
            let room = self.shared.room.notified();
            let full = match self.shared.push(event, true) {
                Ok(number) => return Ok(number),
                Err(NotPushed::Closed) => return Err(EventsError::Closed),
                Err(NotPushed::Full(back, reader)) => {
                    event = back;
                    reader
                }
            };
            let now = self.clock.now();
            let since = match &waited {
                Some((reader, since)) if Arc::ptr_eq(reader, &full) => *since,
                _ => now,
            };
            let most = match full.overflow {
                Overflow::Block(most) => most,
                Overflow::DropOldest | Overflow::Disconnect => Duration::ZERO,
            };
            let left = most.saturating_sub(now.saturating_duration_since(since));
            waited = Some((Arc::clone(&full), since));
            if left.is_zero() {
                self.cut(&full);
                continue;
            }
            tokio::select! {
                () = room => {}
                () = self.clock.sleep(left) => {}
            }
        }
    }

    fn cut(&self, reader: &Arc<Reader>) {
        if self.shared.leave(reader, CUT) {
            tracing::warn!(
                subscriber = reader.name,
                "a subscriber made publishers wait too long and was cut off"
            );
            self.shared.came.notify_waiters();
        }
    }

    /// A subscription with a name that statistics and logs call it by.
    ///
    /// # Errors
    /// [`EventsError::Config`] for a room that is not 1 to the topic's capacity or one subscriber too many,
    /// [`EventsError::Closed`], [`EventsError::Gone`] for a start that is no longer remembered.
    pub fn subscribe(
        &self,
        name: impl Into<String>,
        options: SubscribeOptions,
    ) -> Result<Subscription<T>, EventsError> {
        let room = options.room.unwrap_or(self.shared.capacity);
        if !(1..=self.shared.capacity).contains(&room) {
            return Err(EventsError::config("room", format!("must be 1 to {}", self.shared.capacity)));
        }
        let mut ring = self.shared.lock();
        if ring.closed {
            return Err(EventsError::Closed);
        }
        if ring.readers.iter().filter(|reader| reader.state() == LIVE).count() >= self.shared.max_subscribers
        {
            let most = self.shared.max_subscribers;
            return Err(EventsError::config(
                "subscribers",
                format!("are {most} already, which is the limit"),
            ));
        }
        let cursor = match options.start {
            Start::Now => ring.head,
            Start::Replay(most) => ring.head.saturating_sub(most as u64).max(ring.oldest()),
            Start::At(number) if number < ring.oldest() => return Err(EventsError::Gone(ring.oldest() - 1)),
            Start::At(number) => number.min(ring.head),
        };
        let reader = Arc::new(Reader {
            name: name.into(),
            overflow: options.overflow,
            room: room as u64,
            cursor: AtomicU64::new(cursor),
            lost: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            state: AtomicU8::new(LIVE),
        });
        ring.join(Arc::clone(&reader));
        drop(ring);
        Ok(Subscription::new(Arc::clone(&self.shared), reader, cursor))
    }

    /// Ends the topic: what was published is still delivered, then subscribers are told.
    pub fn close(&self) {
        self.shared.close();
    }

    /// How the topic and its subscribers stand, those that ended recently included.
    pub fn stats(&self) -> TopicStats {
        let ring = self.shared.lock();
        let subscribers = ring.readers.iter().map(|reader| SubscriberStats {
            name: reader.name.clone(),
            state: match reader.state() {
                LIVE => SubscriberState::Live,
                CUT => SubscriberState::Cut,
                DIED => SubscriberState::Died,
                _ => SubscriberState::Closed,
            },
            lag: ring.head.saturating_sub(reader.cursor.load(Ordering::Acquire)),
            lost: reader.lost.load(Ordering::Relaxed),
            handled: reader.handled.load(Ordering::Relaxed),
            failed: reader.failed.load(Ordering::Relaxed),
            dead: reader.dead.load(Ordering::Relaxed),
        });
        let subscribers = subscribers.collect();
        TopicStats { published: ring.head, remembered: ring.slots.len(), subscribers }
    }
}

/// How a topic stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    /// Events published so far, which is the number the next one gets.
    pub published: u64,
    /// Events in the replay window.
    pub remembered: usize,
    /// Its subscribers, in the order they came.
    pub subscribers: Vec<SubscriberStats>,
}

/// How one subscriber stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberStats {
    /// The name it subscribed by.
    pub name: String,
    /// Whether it still takes part.
    pub state: SubscriberState,
    /// Events published that it has not finished with, those it lost included until it notices.
    pub lag: u64,
    /// Events it lost by falling behind.
    pub lost: u64,
    /// Events its handler took.
    pub handled: u64,
    /// Attempts of its handler that failed.
    pub failed: u64,
    /// Events its handler gave up on.
    pub dead: u64,
}

/// Whether a subscriber still takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriberState {
    /// It does.
    Live,
    /// It fell too far behind and was cut off.
    Cut,
    /// It has unsubscribed.
    Closed,
    /// It was lost in a panic.
    Died,
}

impl SubscriberState {
    pub(super) const fn on_drop(panicking: bool) -> u8 {
        if panicking { DIED } else { CLOSED }
    }
}
