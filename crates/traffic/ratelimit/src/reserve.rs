//! Tokens taken before it is known how many are needed.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::RandomState;

use crate::bucket::take_held;
use crate::limiter::{Ask, Inner, RateLimiter};
use crate::outcome::{LimitError, Standing};
use crate::word::MOST_DEBT;

/// Tokens taken on an estimate, to be settled when the real number is known.
///
/// Dropped without being settled, everything reserved counts as used: that is the safe side when a stream breaks off
/// and nobody knows what it cost. Use [`cancel`](Self::cancel) when nothing was.
#[must_use = "dropped, everything reserved counts as used"]
pub struct Reservation<S = RandomState> {
    inner: Arc<Inner<S>>,
    ask: Ask,
    at: u64,
    standing: Standing,
}

impl<S> fmt::Debug for Reservation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("tokens", &self.ask.cost).finish_non_exhaustive()
    }
}

impl<S: BuildHasher> RateLimiter<S> {
    /// Takes `estimate` tokens that are settled later.
    ///
    /// # Errors
    /// As [`check_n`](Self::check_n).
    ///
    /// ```
    /// use runtime_ratelimit::{Rate, RateLimiter};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::new(1024);
    /// let tokens = Rate::per_minute(10_000)?;
    /// let reservation = limiter.reserve("model", tokens, 4_000)?;
    /// assert!(limiter.peek("model", tokens).remaining() < 6_010);
    /// let standing = reservation.settle(700);
    /// assert!(standing.remaining() >= 9_300);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve<K: Hash + ?Sized>(
        &self,
        key: &K,
        rate: crate::Rate,
        estimate: u32,
    ) -> Result<Reservation<S>, LimitError> {
        if estimate > rate.burst() {
            return Err(LimitError::LargerThanBucket { cost: estimate, burst: rate.burst() });
        }
        let (ask, inner) = (self.ask(key, rate).cost(estimate), Arc::clone(self.inner()));
        let at = inner.ticks.now();
        let standing = inner.with_bucket(ask, at, |bucket| {
            bucket.keep_history(at, rate.tolerance());
            take_held(bucket, rate, rate.nanos() * u64::from(estimate), at)
        })??;
        Ok(Reservation { inner, ask, at, standing })
    }
}

impl<S> Reservation<S> {
    /// How many tokens were taken.
    pub fn tokens(&self) -> u32 {
        self.ask.cost
    }

    /// Where the bucket stood when they were taken.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Nothing was used.
    pub fn cancel(self) -> Standing {
        self.settle(0)
    }

    /// Says how many tokens were really used.
    ///
    /// Fewer than reserved: the rest comes back, as far as it is still owed. What time has already paid for does not,
    /// for otherwise more would be granted than the rate allows; nor does what was reserved longer ago than the
    /// bucket takes to fill twice, or under another rate.
    /// More than reserved: the bucket goes into debt, beyond its depth if need be, and pays it off before anything
    /// else is granted.
    pub fn settle(self, used: u32) -> Standing {
        let Ask { rate, hash, cost } = self.ask;
        let now = self.inner.ticks.now();
        let nanos = |tokens: u32| rate.nanos() * u64::from(tokens);
        if used > cost {
            let after = self.inner.with_bucket(self.ask, now, |bucket| {
                let room = MOST_DEBT.saturating_sub(bucket.debt(now));
                bucket.grant(now, nanos(used - cost).min(room));
                bucket.debt(now)
            });
            return Standing::new(after.unwrap_or_default(), rate);
        }
        if let Some(mut bucket) = self.inner.hold(hash) {
            bucket.reprice(rate, now);
            bucket.give_back(self.at, nanos(cost - used));
        }
        self.inner.look(self.ask)
    }
}
