//! Runs a handler over a subscription: failures are tried again, panics are failures, and order holds per key.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runtime_kernel::{Error, SharedClock};
use runtime_resilience::RetryPolicy;
use tokio::task::JoinSet;

use super::subscription::{Delivery, RecvError, Subscription};
use crate::error::EventsError;
use crate::handling::{Attempts, Outcome, once};

/// Which lane an event's key belongs to.
type Keyed<T> = Arc<dyn Fn(&T) -> Option<u64> + Send + Sync>;
type Buried<T> = Arc<dyn Fn(Dead<T>) + Send + Sync>;

/// An event its handler gave up on.
#[derive(Debug)]
pub struct Dead<T> {
    /// The event.
    pub delivery: Delivery<T>,
    /// How often it was tried.
    pub attempts: u32,
    /// The last failure.
    pub error: Error,
}

/// Why a handler no longer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and has finished what it had begun.
    Stopped,
    /// The topic is closed and everything was handled.
    Closed,
    /// The subscriber fell behind and was cut off.
    Cut,
}

/// How a handler is run over a [`Subscription`]. One event at a time, three attempts, unless told.
#[must_use]
pub struct Handling<T> {
    subscription: Subscription<T>,
    clock: SharedClock,
    attempts: Attempts,
    concurrency: usize,
    key: Option<Keyed<T>>,
    dead: Option<Buried<T>>,
}

impl<T: Clone + Send + Sync + 'static> Subscription<T> {
    /// Runs a handler over it; see [`Handling`].
    pub fn handling(self, clock: SharedClock) -> Handling<T> {
        let attempts = Attempts::default();
        Handling { subscription: self, clock, attempts, concurrency: 1, key: None, dead: None }
    }
}

impl<T: Clone + Send + Sync + 'static> Handling<T> {
    /// The policy between attempts; its `max_attempts` is how often an event is tried.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.attempts.policy = policy;
        self
    }

    /// How long one attempt may take. 30 s unless told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.attempts.timeout = timeout;
        self
    }

    /// Handles up to so many events at once, those of one key in order; those without a key in none.
    ///
    /// Keys are spread over that many lanes by their hash, and each lane holds a few events; a stuck key in time holds
    /// up the others of this subscription, never those of another.
    pub fn concurrent<K: Hash>(
        mut self,
        lanes: usize,
        key: impl Fn(&T) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        self.concurrency = lanes.max(1);
        self.key = Some(Arc::new(move |event| key(event).map(|key| hasher.hash_one(key))));
        self
    }

    /// Is told of each event that was given up on. They are counted and logged in any case.
    pub fn dead(mut self, dead: impl Fn(Dead<T>) + Send + Sync + 'static) -> Self {
        self.dead = Some(Arc::new(dead));
        self
    }

    /// Runs until `stop` is ready, the topic is closed or the subscriber is cut off; what has begun is finished.
    pub async fn run<F, W>(self, stop: impl Future<Output = ()> + Send, handler: F) -> Ended
    where
        F: Fn(Delivery<T>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        tokio::pin!(stop);
        let Self { mut subscription, clock, attempts, concurrency, key, dead } = self;
        let reader = Arc::clone(subscription.reader());
        let (handler, attempts) = (Arc::new(handler), Arc::new(attempts));
        let work = move |delivery: Delivery<T>| {
            let (handler, attempts, dead) = (Arc::clone(&handler), Arc::clone(&attempts), dead.clone());
            let (clock, reader) = (Arc::clone(&clock), Arc::clone(&reader));
            async move {
                let mut tried = 0;
                loop {
                    tried += 1;
                    let outcome = match once(&clock, attempts.timeout, || handler(delivery.clone())).await {
                        Ok(()) => {
                            reader.handled.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        Err(error) => {
                            reader.failed.fetch_add(1, Ordering::Relaxed);
                            attempts.judge(error, tried)
                        }
                    };
                    match outcome {
                        Outcome::Again(delay, _) => clock.sleep(delay).await,
                        Outcome::Park(error) => {
                            reader.dead.fetch_add(1, Ordering::Relaxed);
                            let (subscriber, number) = (&reader.name, delivery.number);
                            tracing::error!(subscriber, number, error = %error.report(), "an event was given up on");
                            if let Some(dead) = dead {
                                dead(Dead { delivery, attempts: tried, error });
                            }
                            return;
                        }
                    }
                }
            }
        };
        if concurrency == 1 {
            loop {
                let received = tokio::select! {
                    biased;
                    () = &mut stop => return Ended::Stopped,
                    received = subscription.recv() => received,
                };
                match received {
                    Ok(delivery) => work(delivery).await,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Cut) => return Ended::Cut,
                    Err(RecvError::Closed) => return Ended::Closed,
                }
            }
        }
        let mut lanes = Lanes::new(concurrency);
        let mut ended = None;
        loop {
            tokio::select! {
                biased;
                Some(lane) = lanes.running.join_next() => lanes.finished(lane.ok(), &work),
                () = &mut stop, if ended.is_none() => ended = Some(Ended::Stopped),
                received = subscription.recv(), if ended.is_none() && lanes.waiting < lanes.most => match received {
                    Ok(delivery) => {
                        let hash = key.as_ref().and_then(|key| key(&delivery.event)).unwrap_or(delivery.number);
                        lanes.add(hash, delivery, &work);
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Cut) => ended = Some(Ended::Cut),
                    Err(RecvError::Closed) => ended = Some(Ended::Closed),
                },
                else => {}
            }
            if let Some(ended) = ended
                && lanes.running.is_empty()
            {
                return ended;
            }
        }
    }
}

/// Events by the hash of their key, one at a time per lane.
struct Lanes<T> {
    queues: Vec<(bool, VecDeque<Delivery<T>>)>,
    running: JoinSet<usize>,
    waiting: usize,
    most: usize,
}

impl<T: Send + 'static> Lanes<T> {
    fn new(count: usize) -> Self {
        let queues = (0..count).map(|_| (false, VecDeque::new())).collect();
        Self { queues, running: JoinSet::new(), waiting: 0, most: count.saturating_mul(4) }
    }

    fn add<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        hash: u64,
        delivery: Delivery<T>,
        work: &impl Fn(Delivery<T>) -> W,
    ) {
        let lane = usize::try_from(hash % self.queues.len() as u64).unwrap_or_default();
        let Some((busy, queue)) = self.queues.get_mut(lane) else { return };
        if *busy {
            queue.push_back(delivery);
            self.waiting += 1;
            return;
        }
        *busy = true;
        let work = work(delivery);
        self.running.spawn(async move {
            work.await;
            lane
        });
    }

    /// A lane has finished one event. Work catches its panics; only an aborted runtime loses a lane.
    fn finished<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        lane: Option<usize>,
        work: &impl Fn(Delivery<T>) -> W,
    ) {
        let Some(lane) = lane else { return };
        let Some((busy, queue)) = self.queues.get_mut(lane) else { return };
        *busy = false;
        if let Some(next) = queue.pop_front() {
            self.waiting -= 1;
            *busy = true;
            let work = work(next);
            self.running.spawn(async move {
                work.await;
                lane
            });
        }
    }
}

impl<T> fmt::Debug for Handling<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handling").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl From<RecvError> for EventsError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::Closed,
            RecvError::Lagged(_) | RecvError::Cut => Self::Full(error.to_string()),
        }
    }
}
