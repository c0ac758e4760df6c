//! Remembers verified and refused keys for a short while, each kind within its own bound.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::authenticator::Verified;
use crate::error::Rejection;
use crate::key::KeyId;

/// Names a presented key without keeping it: SHA-256 of its whole text.
pub(crate) type Fingerprint = [u8; 32];

type Answer = Result<Arc<Verified>, Rejection>;

/// Both kinds under one lock held for a look-up only. Refused keys have a room of their own, so that a flood of
/// bad keys never pushes out the good ones.
#[derive(Debug)]
pub(crate) struct Cache {
    ttl: Duration,
    epoch: AtomicU64,
    good: Mutex<Bounded<Arc<Verified>>>,
    bad: Mutex<Bounded<(KeyId, Rejection)>>,
}

/// First in, first out; the queue may hold stale names, which the sequence number tells from live ones.
#[derive(Debug)]
struct Bounded<V> {
    capacity: usize,
    sequence: u64,
    entries: HashMap<Fingerprint, (u64, Instant, V)>,
    order: VecDeque<(u64, Fingerprint)>,
}

impl<V: Clone> Bounded<V> {
    fn new(capacity: usize) -> Self {
        Self { capacity, sequence: 0, entries: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&self, name: &Fingerprint, now: Instant) -> Option<V> {
        self.entries.get(name).filter(|(_, until, _)| now < *until).map(|(.., value)| value.clone())
    }

    fn put(&mut self, name: Fingerprint, until: Instant, value: V) {
        if self.capacity == 0 {
            return;
        }
        self.sequence += 1;
        self.entries.insert(name, (self.sequence, until, value));
        self.order.push_back((self.sequence, name));
        while self.entries.len() > self.capacity || self.order.len() > self.capacity.saturating_mul(2) {
            let Some((sequence, oldest)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|(live, ..)| *live == sequence) {
                self.entries.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, mut dead: impl FnMut(&V) -> bool) {
        self.entries.retain(|_, (.., value)| !dead(value));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(crate) fn new(ttl: Duration, good: usize, bad: usize) -> Self {
        Self {
            ttl,
            epoch: AtomicU64::new(0),
            good: Mutex::new(Bounded::new(good)),
            bad: Mutex::new(Bounded::new(bad)),
        }
    }

    pub(crate) fn get(&self, name: &Fingerprint, now: Instant) -> Option<Answer> {
        if self.ttl.is_zero() {
            return None;
        }
        if let Some(verified) = lock(&self.good).get(name, now) {
            return Some(Ok(verified));
        }
        lock(&self.bad).get(name, now).map(|(_, rejection)| Err(rejection))
    }

    /// To be read before the store is asked and given to [`Cache::put`].
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Remembers an answer, unless something was forgotten since `epoch`: the answer may be older than that.
    pub(crate) fn put(&self, name: Fingerprint, id: KeyId, answer: &Answer, now: Instant, epoch: u64) {
        let Some(until) = now.checked_add(self.ttl).filter(|_| !self.ttl.is_zero()) else { return };
        // The epoch is compared under the lock that `forget` takes after raising it.
        match answer {
            Ok(verified) => {
                let mut good = lock(&self.good);
                if self.epoch() == epoch {
                    good.put(name, until, Arc::clone(verified));
                }
            }
            Err(rejection) => {
                let mut bad = lock(&self.bad);
                if self.epoch() == epoch {
                    bad.put(name, until, (id, *rejection));
                }
            }
        }
    }

    /// Forgets everything about a key.
    pub(crate) fn forget(&self, id: KeyId) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        lock(&self.good).forget(|verified| verified.key.id == id);
        lock(&self.bad).forget(|(refused, _)| *refused == id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_bound_always_holds() {
        let clock = runtime_kernel::ManualClock::new();
        let now = runtime_kernel::Clock::now(&clock);
        let mut room = Bounded::new(3);
        let name = |n: u8| [n; 32];
        for n in 0..200u8 {
            room.put(name(n % 5), now + Duration::from_secs(1), n);
            assert!(room.entries.len() <= 3 && room.order.len() <= 6);
        }
        assert_eq!(room.get(&name(199 % 5), now), Some(199));
        assert_eq!(room.get(&name(195 % 5), now), None);
        assert_eq!(room.get(&name(199 % 5), now + Duration::from_secs(1)), None, "its time is over");
    }
}
