//! Tokens that Redis has already debited, handed out here.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use runtime_kernel::SharedClock;

use crate::buckets::Demand;
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;
use crate::redis::Lease;

const SHARDS: usize = 16;

/// What is left of each key's lease, or until when it is known to be refused.
pub(crate) struct Leases {
    lease: Lease,
    /// Keys per shard.
    most: usize,
    clock: SharedClock,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    fetching: Box<[Arc<tokio::sync::Mutex<()>>]>,
}

type Shard = HashMap<Box<str>, Held>;

struct Held {
    rate: Rate,
    left: u32,
    /// Whether there were fewer than asked for.
    short: bool,
    /// The standing when they were fetched; those not handed out yet count as there.
    standing: Standing,
    until: Instant,
}

impl Leases {
    pub(crate) fn new(lease: Lease, keys: usize, clock: SharedClock) -> Self {
        Self {
            lease,
            most: keys.div_ceil(SHARDS).max(1),
            clock,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            fetching: (0..SHARDS * 4).map(|_| Arc::default()).collect(),
        }
    }

    /// How many tokens to fetch at a time.
    pub(crate) fn tokens(&self, rate: Rate) -> u32 {
        self.lease.tokens.min(rate.burst() / 10).max(1)
    }

    /// Takes from the lease; nothing when Redis has to be asked.
    pub(crate) fn take(&self, demand: Demand<'_>) -> Option<Result<Standing, LimitError>> {
        let now = self.clock.now();
        let mut shard = self.shard(demand.key);
        let held = shard.get_mut(demand.key).filter(|held| held.until > now && held.rate == demand.rate)?;
        if held.left >= demand.cost && demand.cost > 0 {
            held.left -= demand.cost;
            return Some(Ok(held.standing));
        }
        // Too few a moment ago, and none can have come back since: asking again would get the same answer.
        (held.short && demand.cost > 0).then(|| {
            let retry_after = held.until - now;
            Err(LimitError::Exceeded { retry_after, standing: held.standing })
        })
    }

    /// Holds the right to fetch for a key.
    pub(crate) async fn fetching(&self, key: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let nth = self.index(key, self.fetching.len());
        let turn = self.fetching.get(nth).map(Arc::clone).unwrap_or_default();
        turn.lock_owned().await
    }

    /// Takes the demand from what was fetched and keeps the rest.
    pub(crate) fn fetched(
        &self,
        demand: Demand<'_>,
        tokens: u32,
        standing: Standing,
    ) -> Result<Standing, LimitError> {
        let now = self.clock.now();
        let enough = tokens >= demand.cost;
        let missing = demand.rate.interval() * demand.cost.saturating_sub(tokens);
        let left = if enough { tokens - demand.cost } else { tokens };
        let time = if enough { self.lease.time } else { self.lease.time.min(missing) };
        self.keep(demand, Held { rate: demand.rate, left, short: !enough, standing, until: now + time });
        if enough { Ok(standing) } else { Err(LimitError::Exceeded { retry_after: missing, standing }) }
    }

    fn keep(&self, demand: Demand<'_>, held: Held) {
        let now = self.clock.now();
        let mut shard = self.shard(demand.key);
        if shard.len() >= self.most && !shard.contains_key(demand.key) {
            shard.retain(|_, held| held.until > now);
            if shard.len() >= self.most {
                // What is fetched for this key is lost but for what was asked: it costs round trips, never a limit.
                return;
            }
        }
        shard.insert(demand.key.into(), held);
    }

    pub(crate) fn forget(&self, key: &str) {
        self.shard(key).remove(key);
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        #[expect(clippy::indexing_slicing, reason = "the index is below the number of shards")]
        self.shards[self.index(key, SHARDS)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self, key: &str, of: usize) -> usize {
        usize::try_from(self.hasher.hash_one(key) % of as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_kernel::ManualClock;
    use std::time::Duration;

    #[test]
    fn a_lease_is_handed_out_once_and_lost_when_its_time_is_up() {
        let clock = ManualClock::new();
        let lease = Lease { tokens: 10, time: Duration::from_millis(100) };
        let leases = Leases::new(lease, 1_000, Arc::new(clock.clone()));
        let rate = Rate::per_minute(1_000).unwrap();
        let demand = Demand::new("k", rate);
        assert!(leases.take(demand).is_none());
        let standing = Standing::new(0, rate);
        leases.fetched(demand, 3, standing).unwrap();
        assert!(matches!(leases.take(demand), Some(Ok(_))) && matches!(leases.take(demand), Some(Ok(_))));
        assert!(leases.take(demand).is_none(), "three are gone");
        leases.fetched(demand, 3, standing).unwrap();
        clock.advance(Duration::from_millis(100));
        assert!(leases.take(demand).is_none(), "too late");
    }
}
