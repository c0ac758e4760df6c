//! Buckets in Redis: one script, one round trip, exact across processes.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use runtime_kernel::SharedClock;
use runtime_redis::{Redis, RedisError, Script, Value};

use crate::buckets::{Answer, Buckets, Demand, Together};
use crate::config::WhenAway;
use crate::lease::Leases;
use crate::limiter::{MOST_KEYS, RateLimiter, RefusedTogether, Tightest};
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;
use crate::reserved::Reserved;

static TAKE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("bucket.lua"), include_str!("take.lua"))));
static TAKE_ONE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("one.lua")));
static SETTLE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("bucket.lua"), include_str!("settle.lua"))));

/// How many tokens are fetched at a time and handed out here without asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How many tokens. Never more than a tenth of what the bucket holds.
    pub tokens: u32,
    /// How long they may be handed out; what is left then is lost, which is the safe side.
    pub time: Duration,
}

/// Token buckets in Redis.
///
/// The time is Redis's own, so processes need no common clock. All keys of one request are checked in one script, so in
/// a cluster all buckets live in one slot and on one node.
/// Intervals are counted in sixteenths of a microsecond, rounded up.
///
/// With a [`Lease`], tokens are debited in Redis before they are handed out here, so no limit is exceeded over time;
/// they may be used up to the lease's time after they were debited, which makes a burst at most one lease per
/// process larger. Reservations are made in Redis, never from a lease.
#[derive(Clone)]
pub struct RedisBuckets {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Redis,
    when_away: WhenAway,
    /// Whether it has been logged that the script is refused.
    told: AtomicBool,
    local: RateLimiter,
    leases: Option<Leases>,
}

impl fmt::Debug for RedisBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuckets").field("when_away", &self.inner.when_away).finish_non_exhaustive()
    }
}

impl RedisBuckets {
    /// Buckets in this Redis. `local` limits by itself while Redis is away, if that is what is to happen then.
    pub fn new(redis: Redis, when_away: WhenAway, local: RateLimiter) -> Self {
        Self {
            inner: Arc::new(Inner { redis, when_away, told: AtomicBool::new(false), local, leases: None }),
        }
    }

    /// The same with tokens fetched in advance, for at most `keys` keys at a time.
    #[must_use]
    pub fn leased(self, lease: Lease, keys: usize, clock: SharedClock) -> Self {
        let Inner { redis, when_away, local, .. } = &*self.inner;
        let leases = Some(Leases::new(lease, keys, clock));
        let told = AtomicBool::new(false);
        let inner = Inner { redis: redis.clone(), when_away: *when_away, told, local: local.clone(), leases };
        Self { inner: Arc::new(inner) }
    }

    /// Any keys may come in one request, so all of them live in one slot of a cluster.
    fn key(&self, key: &str) -> String {
        self.inner.redis.key_together("limit", &format!("bucket:{key}"))
    }

    async fn run(&self, demands: &[Demand<'_>], how: &str) -> Result<Vec<i64>, RedisError> {
        let mut script = TAKE.prepare_invoke();
        for demand in demands {
            script.key(self.key(demand.key));
        }
        for demand in demands {
            let interval = sixteenths(demand.rate);
            script.arg(interval).arg(interval * u64::from(demand.rate.burst()));
            script.arg(demand.cost);
        }
        script.arg(how);
        self.inner.redis.run_script(&script).await
    }

    async fn run_all(&self, demands: &[Demand<'_>]) -> Result<Together, RedisError> {
        if let [one] = demands
            && one.cost > 0
            && let Some(taken) = self.run_one(*one).await?
        {
            return Ok(taken);
        }
        Ok(read(demands, &self.run(demands, "all").await?))
    }

    /// Nothing when the bucket remembers what was reserved from it.
    async fn run_one(&self, demand: Demand<'_>) -> Result<Option<Together>, RedisError> {
        let interval = sixteenths(demand.rate);
        let mut script = TAKE_ONE.key(self.key(demand.key));
        script.arg(interval * u64::from(demand.cost)).arg(interval * u64::from(demand.rate.burst()));
        let standing = |debt| Standing::new(nanos_of(debt), demand.rate);
        Ok(match self.inner.redis.run_script(script).await? {
            Value::Nil => None,
            Value::Int(debt) => Some(Ok(Some(Tightest { index: 0, standing: standing(debt) }))),
            refused => {
                let error = match refused.as_sequence() {
                    Some([Value::Int(debt), Value::Int(wait)]) => LimitError::Exceeded {
                        retry_after: Duration::from_nanos(nanos_of(*wait)),
                        standing: standing(*debt),
                    },
                    _ => garbled(),
                };
                Some(Err(RefusedTogether { index: 0, error }))
            }
        })
    }

    async fn take_all(&self, demands: &[Demand<'_>]) -> Together {
        if let Some(refused) = impossible(demands) {
            return Err(refused);
        }
        if demands.is_empty() {
            return Ok(None);
        }
        if let (Some(leases), [one]) = (&self.inner.leases, demands) {
            return self.take_leased(leases, *one).await.map_err(|error| RefusedTogether { index: 0, error });
        }
        match self.run_all(demands).await {
            Ok(taken) => {
                if self.inner.told.load(Ordering::Relaxed) {
                    self.inner.told.store(false, Ordering::Relaxed);
                }
                taken
            }
            Err(error) => self.without(demands, &error),
        }
    }

    async fn take_leased(&self, leases: &Leases, demand: Demand<'_>) -> Result<Option<Tightest>, LimitError> {
        let granted = |standing| Some(Tightest { index: 0, standing });
        if let Some(taken) = leases.take(demand) {
            return taken.map(granted);
        }
        // One caller fetches for all that wait for this key.
        let _turn = leases.fetching(demand.key).await;
        if let Some(taken) = leases.take(demand) {
            return taken.map(granted);
        }
        let wanted = leases.tokens(demand.rate).max(demand.cost);
        match self.run(&[Demand { cost: wanted, ..demand }], "some").await {
            Ok(answer) => {
                let [_, debt, tokens] = answer.as_slice() else { return Err(garbled()) };
                let standing = Standing::new(micros(*debt), demand.rate);
                let tokens = u32::try_from(*tokens).unwrap_or(0);
                leases.fetched(demand, tokens, standing).map(granted)
            }
            Err(error) => match self.without(&[demand], &error) {
                Ok(tightest) => Ok(tightest),
                Err(refused) => Err(refused.error),
            },
        }
    }

    async fn reserve_one(&self, demand: Demand<'_>) -> Result<Reserved, LimitError> {
        let (key, demands) = (demand.key, [demand]);
        if let Some(refused) = impossible(&demands) {
            return Err(refused.error);
        }
        match self.run(&demands, "reserve").await {
            Ok(answer) => {
                if let [1, debt, at] = answer.as_slice() {
                    let open = Open { buckets: self.clone(), key: key.into(), rate: demand.rate, at: *at };
                    return Ok(Reserved::in_redis(
                        demand.cost,
                        Standing::new(micros(*debt), demand.rate),
                        open,
                    ));
                }
                Err(read(&demands, &answer).err().map_or_else(garbled, |refused| refused.error))
            }
            Err(error) if error.is_away() => match self.inner.when_away {
                WhenAway::Admit => Ok(Reserved::nowhere(demand.cost)),
                WhenAway::Local => {
                    self.inner.local.reserve(key, demand.rate, demand.cost).map(Reserved::in_memory)
                }
                WhenAway::Refuse => Err(LimitError::Away { retry_after: Duration::from_secs(1) }),
            },
            Err(error) => Err(self.defect(&error)),
        }
    }

    /// A script that fails is a defect of ours. It must not let everything through unseen.
    fn defect(&self, error: &RedisError) -> LimitError {
        if !self.inner.told.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "Redis refuses the limiter's script; until it does not, limited requests are refused");
        }
        garbled()
    }

    /// What was declared for when Redis is away.
    fn without(&self, demands: &[Demand<'_>], error: &RedisError) -> Together {
        if !error.is_away() {
            return Err(RefusedTogether { index: 0, error: self.defect(error) });
        }
        match self.inner.when_away {
            WhenAway::Admit => Ok(None),
            WhenAway::Local => self.inner.local.take_now(demands).unwrap_or(Ok(None)),
            WhenAway::Refuse => {
                let retry_after = Duration::from_secs(1);
                Err(RefusedTogether { index: 0, error: LimitError::Away { retry_after } })
            }
        }
    }
}

impl Buckets for RedisBuckets {
    fn take<'a>(&'a self, demands: &'a [Demand<'a>]) -> Answer<'a, Together> {
        Box::pin(self.take_all(demands))
    }

    fn take_now(&self, demands: &[Demand<'_>]) -> Option<Together> {
        let [one] = demands else { return None };
        if one.cost > one.rate.burst() {
            return impossible(demands).map(Err);
        }
        let taken = self.inner.leases.as_ref()?.take(*one)?;
        let taken = taken.map(|standing| Some(Tightest { index: 0, standing }));
        Some(taken.map_err(|error| RefusedTogether { index: 0, error }))
    }

    fn reserve<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Reserved, LimitError>> {
        Box::pin(self.reserve_one(demand))
    }

    fn peek<'a>(&'a self, demand: Demand<'a>) -> Answer<'a, Result<Standing, LimitError>> {
        Box::pin(async move {
            match self.run(&[demand.cost(0)], "look").await {
                Ok(answer) => {
                    Ok(Standing::new(micros(answer.get(1).copied().unwrap_or_default()), demand.rate))
                }
                Err(error) if !error.is_away() => Err(garbled()),
                Err(_) => match self.inner.when_away {
                    WhenAway::Refuse => Err(LimitError::Away { retry_after: Duration::from_secs(1) }),
                    _ => Ok(self.inner.local.peek(demand.key, demand.rate)),
                },
            }
        })
    }

    fn reset<'a>(&'a self, key: &'a str) -> Answer<'a, Result<(), LimitError>> {
        Box::pin(async move {
            self.inner.local.reset(key);
            if let Some(leases) = &self.inner.leases {
                leases.forget(key);
            }
            let deleted = self.inner.redis.run::<()>(runtime_redis::cmd("DEL").arg(self.key(key))).await;
            deleted.map_err(|_| LimitError::Away { retry_after: Duration::from_secs(1) })
        })
    }
}

/// What is reserved in Redis: its bucket, and when, which no other reservation of the bucket shares.
pub(crate) struct Open {
    buckets: RedisBuckets,
    key: Box<str>,
    rate: Rate,
    at: i64,
}

impl Open {
    /// Of so many reserved tokens, so many were used.
    pub(crate) async fn settle(&self, tokens: u32, used: u32) -> Result<Standing, LimitError> {
        let redis = &self.buckets.inner.redis;
        let done = redis.key_together("limit", &format!("settled:{}:{}", self.at, self.key));
        let time = |tokens: u32| sixteenths(self.rate).saturating_mul(u64::from(tokens));
        let mut script = SETTLE.prepare_invoke();
        script.key(self.buckets.key(&self.key)).key(done).arg(self.at);
        script.arg(time(tokens.saturating_sub(used))).arg(time(used.saturating_sub(tokens)));
        match redis.run_script(&script).await {
            Ok(debt) => Ok(Standing::new(micros(debt), self.rate)),
            Err(error) if error.is_away() => Err(LimitError::Away { retry_after: Duration::from_secs(1) }),
            Err(error) => Err(self.buckets.defect(&error)),
        }
    }
}

/// An interval in sixteenths of a microsecond, rounded up: sums of them are exact in the script's doubles.
fn sixteenths(rate: Rate) -> u64 {
    (rate.nanos() * 2).div_ceil(125)
}

/// Sixteenths of a microsecond in nanoseconds, whole microseconds, rounded up.
fn nanos_of(sixteenths: i64) -> u64 {
    u64::try_from(sixteenths).unwrap_or_default().div_ceil(16).saturating_mul(1_000)
}

fn micros(debt: i64) -> u64 {
    u64::try_from(debt).unwrap_or_default().saturating_mul(1_000)
}

fn impossible(demands: &[Demand<'_>]) -> Option<RefusedTogether> {
    if demands.len() > MOST_KEYS {
        let error = LimitError::TooManyKeys { keys: demands.len(), most: MOST_KEYS };
        return Some(RefusedTogether { index: MOST_KEYS, error });
    }
    let index = demands.iter().position(|demand| demand.cost > demand.rate.burst())?;
    let demand = demands.get(index)?;
    let error = LimitError::LargerThanBucket { cost: demand.cost, burst: demand.rate.burst() };
    Some(RefusedTogether { index, error })
}

fn read(demands: &[Demand<'_>], answer: &[i64]) -> Together {
    match answer {
        [0, index, wait, debt] => {
            let index = usize::try_from(*index).unwrap_or(1).saturating_sub(1);
            let Some(demand) = demands.get(index) else {
                return Err(RefusedTogether { index: 0, error: garbled() });
            };
            let standing = Standing::new(micros(*debt), demand.rate);
            let error = LimitError::Exceeded { retry_after: Duration::from_nanos(micros(*wait)), standing };
            Err(RefusedTogether { index, error })
        }
        [1, debts @ ..] if debts.len() == demands.len() => {
            let standings = demands.iter().zip(debts).map(|(d, debt)| Standing::new(micros(*debt), d.rate));
            let tightest = standings.enumerate().map(|(index, standing)| Tightest { index, standing });
            Ok(tightest.reduce(|a, b| if b.standing.is_tighter_than(a.standing) { b } else { a }))
        }
        _ => Err(RefusedTogether { index: 0, error: garbled() }),
    }
}

fn garbled() -> LimitError {
    LimitError::Away { retry_after: Duration::from_secs(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_kernel::SystemClock;
    use runtime_redis::RedisConfig;

    #[tokio::test]
    async fn what_is_settled_twice_comes_back_once() {
        let server = runtime_testkit::redis::server().await.unwrap();
        let config = RedisConfig::at(server.url()).with_prefix(server.prefix());
        let redis = Redis::new(&config, SystemClock::shared()).unwrap();
        let buckets = RedisBuckets::new(redis, WhenAway::Refuse, RateLimiter::new(1));
        let demand = Demand::new("k", Rate::per_hour(100).unwrap()).cost(10);
        let mut opened = Vec::new();
        for _ in 0..5 {
            let answer = buckets.run(&[demand], "reserve").await.unwrap();
            opened.push(Open { buckets: buckets.clone(), key: "k".into(), rate: demand.rate, at: answer[2] });
        }
        for (open, used, left) in [(&opened[0], 0, 60), (&opened[1], 30, 40)] {
            for _ in 0..2 {
                assert_eq!(open.settle(10, used).await.unwrap().remaining(), left);
            }
        }
    }
}
