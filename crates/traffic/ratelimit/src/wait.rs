//! Waiting for a turn: first come, first served per key, and nothing consumed by those who give up.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime_kernel::{Clock, Deadline};

use crate::limiter::{Ask, RateLimiter};
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;

/// Those who wait, by key. A key is here only while somebody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: Mutex<HashMap<u64, Arc<Turn>>>,
}

/// The queue of one key. The one whose turn it is holds the lock and sleeps; the rest wait behind it.
#[derive(Debug, Default)]
struct Turn {
    next: tokio::sync::Mutex<()>,
    /// What those in the queue have asked for, in nanoseconds of debt.
    queued: AtomicU64,
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    turns: &'a Turns,
    hash: u64,
    turn: Arc<Turn>,
    nanos: u64,
}

impl Turns {
    fn join(&self, hash: u64, nanos: u64) -> Place<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(waiting.entry(hash).or_default());
        turn.queued.fetch_add(nanos, Ordering::Relaxed);
        Place { turns: self, hash, turn, nanos }
    }

    fn queued(&self, hash: u64) -> u64 {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&hash).map_or(0, |turn| turn.queued.load(Ordering::Relaxed))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn.queued.fetch_sub(self.nanos, Ordering::Relaxed);
        // The map's own and ours: nobody else is left, and nobody can join while the map is locked.
        if Arc::strong_count(&self.turn) == 2 {
            waiting.remove(&self.hash);
        }
    }
}

impl<S: BuildHasher> RateLimiter<S> {
    /// Waits until `cost` tokens can be had, and takes them.
    ///
    /// Waiters of one key are served in the order they came. When the wait would not end before the deadline, by what
    /// is known now, it is not begun.
    ///
    /// Cancel-safe: dropped while it waits, it has taken nothing, and the next in line takes its place.
    ///
    /// # Errors
    /// [`LimitError::TooLate`] when the deadline would pass first, [`LimitError::LargerThanBucket`] when waiting does
    /// not help.
    pub async fn wait<K: Hash + ?Sized>(
        &self,
        key: &K,
        rate: Rate,
        cost: u32,
        clock: &dyn Clock,
        deadline: Deadline,
    ) -> Result<Standing, LimitError> {
        self.wait_for(self.ask(key, rate).cost(cost), clock, deadline).await
    }

    async fn wait_for(
        &self,
        ask: Ask,
        clock: &dyn Clock,
        deadline: Deadline,
    ) -> Result<Standing, LimitError> {
        let inner = self.inner();
        // Those who already wait come first.
        let ahead = Duration::from_nanos(inner.turns.queued(ask.hash));
        if ahead.is_zero() {
            match inner.take(ask) {
                Err(error) => in_time(error.retry_after().ok_or(error)?, clock, deadline)?,
                granted => return granted,
            };
        } else if ask.cost <= ask.rate.burst() {
            let debt = inner.look(ask).reset_after().saturating_add(ask.rate.interval() * ask.cost);
            in_time(debt.saturating_sub(ask.rate.fill_time()).saturating_add(ahead), clock, deadline)?;
        }
        let place = inner.turns.join(ask.hash, ask.rate.nanos().saturating_mul(u64::from(ask.cost)));
        let Ok(_turn) = deadline.run(clock, place.turn.next.lock()).await else {
            return Err(LimitError::TooLate { retry_after: ahead });
        };
        loop {
            match inner.take(ask) {
                Err(error) => clock.sleep(in_time(error.retry_after().ok_or(error)?, clock, deadline)?).await,
                granted => return granted,
            }
        }
    }
}

/// The wait, if it ends before the deadline.
fn in_time(wait: Duration, clock: &dyn Clock, deadline: Deadline) -> Result<Duration, LimitError> {
    match deadline.remaining(clock) {
        Some(left) if wait > left => Err(LimitError::TooLate { retry_after: wait }),
        _ => Ok(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_forgotten_with_its_last_waiter() {
        let turns = Turns::default();
        let (first, second) = (turns.join(1, 5), turns.join(1, 7));
        assert_eq!((turns.queued(1), turns.queued(2), turns.len()), (12, 0, 1));
        drop(first);
        assert_eq!((turns.queued(1), turns.len()), (7, 1));
        drop(second);
        assert_eq!((turns.queued(1), turns.len()), (0, 0));
    }
}
