//! The limiter: many keyed buckets in bounded memory, checked one at a time or together.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::quality::RandomState;
use runtime_kernel::{SharedClock, Ticks};

use crate::bucket::{Bucket, exceeded, repriced, take_held};
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;
use crate::sync::pause;
use crate::table::{Found, NoRoom, Table, key_of};
use crate::wait::Turns;
use crate::word::{BUSY, Held, Word, admit, is_plain, time};

/// How many keys can be checked together.
pub const MOST_KEYS: usize = 16;

/// What happens to a new key when every slot it could have belongs to a key that is still in debt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// It shares one bucket with all other keys that found no slot, each judged by its own rate.
    #[default]
    Shared,
    /// It is refused with [`LimitError::Full`].
    Refuse,
}

/// Token buckets by key, in memory, shared by clones.
///
/// A key is anything that can be hashed; only the hash is kept. The rate comes with each check, so every key can have
/// its own and a changed one holds from the next check on: what was taken stays taken, counted in tokens.
///
/// Memory is fixed when the limiter is made: 16 bytes per slot, 4 slots for 3 keys. A bucket that is full again is
/// forgotten when its slot is needed; one that is not, never ([`Overflow`] says what happens then).
///
/// ```
/// use runtime_ratelimit::{LimitError, Rate, RateLimiter};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = RateLimiter::new(65_536);
/// let search = Rate::per_minute(2)?;
///
/// let standing = limiter.check(&("search", "alice"), search)?;
/// assert_eq!(standing.remaining(), 1);
/// limiter.check(&("search", "alice"), search)?;
/// let refused = limiter.check(&("search", "alice"), search).unwrap_err();
/// assert!(refused.retry_after() > Some(std::time::Duration::from_secs(29)));
/// limiter.check(&("search", "bob"), search)?;
/// # Ok(())
/// # }
/// ```
pub struct RateLimiter<S = RandomState> {
    inner: Arc<Inner<S>>,
}

pub(crate) struct Inner<S> {
    pub(crate) table: Table,
    /// The bucket of those that found no slot.
    spare: Word,
    overflow: Overflow,
    hasher: S,
    pub(crate) ticks: Ticks,
    pub(crate) turns: Turns,
}

/// One of several buckets asked together: the key's hash, the rate and how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub(crate) hash: u64,
    pub(crate) rate: Rate,
    pub(crate) cost: u32,
}

impl Ask {
    /// The same for so many tokens. One unless told; none looks without taking.
    #[must_use]
    pub fn cost(mut self, cost: u32) -> Self {
        self.cost = cost;
        self
    }
}

/// Of several keys that were granted together, the one with the least left, as a share of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tightest {
    /// Its place in the request.
    pub index: usize,
    /// Where it stands.
    pub standing: Standing,
}

/// A request for several keys was refused, and nothing was taken from any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct RefusedTogether {
    /// Which of the keys refused, by its place in the request; the one to wait for longest if several did.
    pub index: usize,
    /// Why.
    pub error: LimitError,
}

impl<S> Clone for RateLimiter<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> fmt::Debug for RateLimiter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.inner.table.slots();
        f.debug_struct("RateLimiter").field("slots", &slots).finish_non_exhaustive()
    }
}

impl RateLimiter {
    /// A limiter on the machine's clock for so many keys in debt at the same time, 22 bytes each.
    pub fn new(keys: usize) -> Self {
        Self::builder(keys).build()
    }

    /// A limiter for so many keys, with something other than the defaults.
    pub fn builder(keys: usize) -> Builder {
        Builder { keys, overflow: Overflow::default(), ticks: None, hasher: RandomState::default() }
    }
}

/// What a [`RateLimiter`] is made of.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder<S = RandomState> {
    keys: usize,
    overflow: Overflow,
    ticks: Option<Ticks>,
    hasher: S,
}

impl<S: BuildHasher> Builder<S> {
    /// What happens to a new key when there is no room.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Another clock than the machine's, for tests.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.ticks = Some(Ticks::of(clock));
        self
    }

    /// Another hash than foldhash, seeded at random for every limiter. Whoever can foresee hashes can spend another
    /// key's tokens: it has to be seeded, unless keys are trusted.
    pub fn hasher<H: BuildHasher>(self, hasher: H) -> Builder<H> {
        Builder { keys: self.keys, overflow: self.overflow, ticks: self.ticks, hasher }
    }

    /// The limiter; takes its memory now.
    pub fn build(self) -> RateLimiter<S> {
        let inner = Inner {
            table: Table::new(self.keys),
            spare: Word::default(),
            overflow: self.overflow,
            hasher: self.hasher,
            ticks: self.ticks.unwrap_or_else(Ticks::machine),
            turns: Turns::default(),
        };
        RateLimiter { inner: Arc::new(inner) }
    }
}

impl<S: BuildHasher> RateLimiter<S> {
    pub(crate) fn inner(&self) -> &Arc<Inner<S>> {
        &self.inner
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`LimitError::Exceeded`] when there is none, or as [`Overflow`] says.
    #[inline]
    pub fn check<K: Hash + ?Sized>(&self, key: &K, rate: Rate) -> Result<Standing, LimitError> {
        self.inner.take(self.ask(key, rate))
    }

    /// Takes `cost` tokens, or none of them. A cost of 0 only looks.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`LimitError::LargerThanBucket`] when it can never succeed.
    pub fn check_n<K: Hash + ?Sized>(&self, key: &K, rate: Rate, cost: u32) -> Result<Standing, LimitError> {
        self.inner.take(self.ask(key, rate).cost(cost))
    }

    /// Where the key's bucket stands; nothing is taken and nothing remembered.
    pub fn peek<K: Hash + ?Sized>(&self, key: &K, rate: Rate) -> Standing {
        self.inner.look(self.ask(key, rate))
    }

    /// Takes as many of `most` tokens as there are, possibly none, and says how many.
    pub fn take_up_to<K: Hash + ?Sized>(&self, key: &K, rate: Rate, most: u32) -> u32 {
        let ask = self.ask(key, rate);
        let now = self.inner.ticks.now();
        self.inner
            .with_bucket(ask, now, |bucket| {
                let debt = bucket.debt(now);
                let left = Standing::new(debt, rate).remaining().min(most);
                if left > 0 {
                    bucket.grant(now, rate.nanos() * u64::from(left));
                }
                left
            })
            .unwrap_or(0)
    }

    /// Takes from all buckets or from none, in one step that nobody sees half-done.
    ///
    /// Answers with the tightest of them. Keys may repeat; their costs add up.
    ///
    /// # Errors
    /// [`RefusedTogether`] says which key refused and why; [`LimitError::TooManyKeys`] beyond [`MOST_KEYS`].
    pub fn check_all(&self, asks: &[Ask]) -> Result<Option<Tightest>, RefusedTogether> {
        self.inner.take_all(asks)
    }

    /// One of several buckets for [`check_all`](Self::check_all): one token of `key` at `rate`.
    #[inline]
    pub fn ask<K: Hash + ?Sized>(&self, key: &K, rate: Rate) -> Ask {
        Ask { hash: self.inner.hasher.hash_one(key), rate, cost: 1 }
    }

    /// Forgives the key's debt: its bucket is full again.
    pub fn reset<K: Hash + ?Sized>(&self, key: &K) {
        let hash = self.inner.hasher.hash_one(key);
        if let Some(mut bucket) = self.inner.hold(hash) {
            let now = self.inner.ticks.now();
            bucket.set(now);
        }
    }

    /// How many keys are in debt now. Looks at every slot.
    pub fn in_debt(&self) -> usize {
        self.inner.table.in_debt(self.inner.ticks.now())
    }
}

/// A key's slot as it was found, and its word if it is held already.
type Place<'a> = (Option<Found<'a>>, Option<Held<'a>>);

impl<S> Inner<S> {
    /// The common case, small enough to be compiled into its caller: the key's slot is in its home line, plain and of
    /// this rate.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "passing rate and outcome through memory costs half of a check again"
    )]
    pub(crate) fn take(&self, ask: Ask) -> Result<Standing, LimitError> {
        let Ask { hash, rate, cost } = ask;
        let key = key_of(hash, rate.code());
        // First the clock: the less is done between reading a bucket and writing it, the rarer does somebody come between.
        let now = self.ticks.now();
        let mut at_home = self.table.at_home(hash, key);
        while let Some(seen) = at_home
            && is_plain(seen.word)
            // Nothing, or more than fits, is judged elsewhere.
            && cost.wrapping_sub(1) < rate.burst()
            && let Ok(next) = admit(seen.word, now, rate.nanos().wrapping_mul(u64::from(cost)), rate.tolerance())
        {
            match seen.swap(next) {
                Ok(()) => return Ok(Standing::new(next - now, rate)),
                Err(again) => at_home = again,
            }
        }
        self.take_elsewhere(ask, now)
    }

    /// The same wherever the slot is, and however often it changes meanwhile.
    #[inline(never)]
    fn take_elsewhere(&self, ask: Ask, now: u64) -> Result<Standing, LimitError> {
        let Ask { hash, rate, cost } = ask;
        if cost.wrapping_sub(1) < rate.burst() {
            let plain = |found: &Found<'_>| is_plain(found.word) && found.code == rate.code();
            while let Some(found) = self.table.find(hash).filter(plain) {
                match admit(found.word, now, rate.nanos() * u64::from(cost), rate.tolerance()) {
                    Ok(next) if found.slot.word.replace(found.word, next) => {
                        return Ok(Standing::new(next - now, rate));
                    }
                    // A refusal writes nothing, so it needs no hold; but key and word must be of the same moment.
                    Err(wait) if found.slot.word.load() == found.word => {
                        return Err(exceeded(wait, found.word, now, rate));
                    }
                    _ => {}
                }
            }
        }
        self.take_slowly(ask, now)
    }

    #[cold]
    #[inline(never)]
    fn take_slowly(&self, ask: Ask, now: u64) -> Result<Standing, LimitError> {
        let Ask { rate, cost, .. } = ask;
        if cost > rate.burst() {
            return Err(LimitError::LargerThanBucket { cost, burst: rate.burst() });
        }
        if cost == 0 {
            return self.seen(ask);
        }
        let increment = rate.nanos() * u64::from(cost);
        self.with_bucket(ask, now, |bucket| take_held(bucket, rate, increment, now))?
    }

    fn seen(&self, ask: Ask) -> Result<Standing, LimitError> {
        let standing = self.look(ask);
        // Settled beyond its end: even nothing has to wait until the debt fits the bucket again.
        match standing.reset_after().checked_sub(ask.rate.fill_time()) {
            Some(retry_after) if !retry_after.is_zero() => {
                Err(LimitError::Exceeded { retry_after, standing })
            }
            _ => Ok(standing),
        }
    }

    pub(crate) fn look(&self, ask: Ask) -> Standing {
        let (now, rate) = (self.ticks.now(), ask.rate);
        let mut tries = 0;
        let debt = loop {
            let Some(found) = self.table.find(ask.hash) else { break 0 };
            if found.word & BUSY == 0 {
                let debt = time(found.word).saturating_sub(now);
                break if found.code == rate.code() { debt } else { repriced(debt, found.code, rate) };
            }
            pause(&mut tries);
        };
        Standing::new(debt, rate)
    }

    /// The key's bucket, if it has one, held.
    pub(crate) fn hold(&self, hash: u64) -> Option<Bucket<'_>> {
        loop {
            let found = self.table.find(hash)?;
            let held = found.slot.word.hold();
            if found.slot.belongs_to(hash) {
                return Some(Bucket { held, found: Some(found), table: &self.table });
            }
        }
    }

    /// The key's slot, which is held if it is new, or nothing for the spare bucket.
    fn place(&self, ask: Ask, now: u64) -> Result<Place<'_>, LimitError> {
        // What the key may have taken from the spare bucket, it still owes in its own.
        let inherited = || match self.overflow {
            Overflow::Shared => self.spare.hold().time(),
            Overflow::Refuse => 0,
        };
        match (self.table.find_or_take(ask.hash, ask.rate.code(), now, inherited), self.overflow) {
            (Ok((found, held)), _) => Ok((Some(found), held)),
            (Err(_), Overflow::Shared) => Ok((None, None)),
            (Err(NoRoom { until }), Overflow::Refuse) => {
                let wait = until.saturating_sub(now);
                Err(LimitError::Full { retry_after: std::time::Duration::from_nanos(wait) })
            }
        }
    }

    /// Holds the key's bucket for a moment, brought to its rate.
    pub(crate) fn with_bucket<T>(
        &self,
        ask: Ask,
        now: u64,
        work: impl FnOnce(&mut Bucket<'_>) -> T,
    ) -> Result<T, LimitError> {
        loop {
            let (found, held) = self.place(ask, now)?;
            let bucket = match held {
                Some(held) => Some(Bucket { held, found, table: &self.table }),
                None => self.hold_place(found, ask.hash),
            };
            if let Some(mut bucket) = bucket {
                bucket.reprice(ask.rate, now);
                return Ok(work(&mut bucket));
            }
        }
    }

    /// Holds a place, unless it has gone to another key meanwhile.
    fn hold_place<'a>(&'a self, found: Option<Found<'a>>, hash: u64) -> Option<Bucket<'a>> {
        let held = found.map_or(&self.spare, |found| &found.slot.word).hold();
        self.is_place_of(found, hash).then_some(Bucket { held, found, table: &self.table })
    }

    /// Whether a held place is this key's. Who has a slot by now uses that; the spare bucket is for those who have none.
    fn is_place_of(&self, found: Option<Found<'_>>, hash: u64) -> bool {
        found.map_or_else(|| self.table.find(hash).is_none(), |found| found.slot.belongs_to(hash))
    }

    fn take_all(&self, asks: &[Ask]) -> Result<Option<Tightest>, RefusedTogether> {
        if asks.len() > MOST_KEYS {
            let error = LimitError::TooManyKeys { keys: asks.len(), most: MOST_KEYS };
            return Err(RefusedTogether { index: MOST_KEYS, error });
        }
        for (index, ask) in asks.iter().enumerate() {
            if ask.cost > ask.rate.burst() {
                let error = LimitError::LargerThanBucket { cost: ask.cost, burst: ask.rate.burst() };
                return Err(RefusedTogether { index, error });
            }
        }
        let now = self.ticks.now();
        loop {
            if let Some(outcome) = self.try_take_all(asks, now) {
                return outcome;
            }
        }
    }

    /// `None` when a slot went to another key before it was held.
    fn try_take_all(&self, asks: &[Ask], now: u64) -> Option<Result<Option<Tightest>, RefusedTogether>> {
        let mut places = [const { None::<(usize, Option<Found<'_>>)> }; MOST_KEYS];
        for (index, (ask, place)) in asks.iter().zip(&mut places).enumerate() {
            match self.place(*ask, now) {
                // Not held yet, even if it is new: that comes in order.
                Ok((found, _)) => *place = Some((index, found)),
                Err(error) => return Some(Err(RefusedTogether { index, error })),
            }
        }
        // Everybody holds slots in the same order, so nobody waits in a circle.
        let places = places.get_mut(..asks.len()).unwrap_or_default();
        places
            .sort_unstable_by_key(|place| place.and_then(|(_, found)| found).map_or(usize::MAX, |f| f.index));
        let mut buckets = [const { None::<Bucket<'_>> }; MOST_KEYS];
        let mut last = None;
        for (place, bucket) in places.iter().flatten().zip(&mut buckets) {
            let index = place.1.map_or(usize::MAX, |found| found.index);
            let hash = asks.get(place.0).map_or(0, |ask| ask.hash);
            if last.replace(index) != Some(index) {
                *bucket = Some(self.hold_place(place.1, hash)?);
            } else if !self.is_place_of(place.1, hash) {
                return None;
            }
        }
        Some(decide(asks, places, &mut buckets, now))
    }
}

/// Judges every ask against its held bucket; nothing is written unless all are granted.
fn decide(
    asks: &[Ask],
    places: &[Option<(usize, Option<Found<'_>>)>],
    buckets: &mut [Option<Bucket<'_>>],
    now: u64,
) -> Result<Option<Tightest>, RefusedTogether> {
    let mut refused: Option<RefusedTogether> = None;
    let mut tightest: Option<Tightest> = None;
    let mut pending = [0; MOST_KEYS];
    let mut at = 0;
    for (nth, (index, _)) in places.iter().flatten().enumerate() {
        // A repeated key has no bucket of its own but that of the one before it.
        at = if buckets.get(nth).is_some_and(Option::is_some) { nth } else { at };
        let (Some(ask), Some(Some(bucket)), Some(pending)) =
            (asks.get(*index), buckets.get_mut(at), pending.get_mut(at))
        else {
            continue;
        };
        if let Some(before) = bucket.reprice(ask.rate, now) {
            *pending = repriced(*pending, before, ask.rate);
        }
        let arrival = now + bucket.debt(now) + *pending;
        let increment = ask.rate.nanos() * u64::from(ask.cost);
        match admit(arrival, now, increment, ask.rate.tolerance()) {
            Ok(granted) => {
                *pending += increment;
                let standing = Standing::new(granted - now, ask.rate);
                if tightest.is_none_or(|tightest| standing.is_tighter_than(tightest.standing)) {
                    tightest = Some(Tightest { index: *index, standing });
                }
            }
            Err(wait) => {
                let error = exceeded(wait, arrival, now, ask.rate);
                let longer = |before: &RefusedTogether| before.error.retry_after() >= error.retry_after();
                if !refused.as_ref().is_some_and(longer) {
                    refused = Some(RefusedTogether { index: *index, error });
                }
            }
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    for (bucket, pending) in buckets.iter_mut().zip(pending) {
        if let Some(bucket) = bucket {
            bucket.grant(now, pending);
        }
    }
    Ok(tightest)
}
