//! The connections: one shared by everybody who does not block, a pool for those who do.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use deadpool::Runtime;
use deadpool::managed::{Pool, PoolError, TimeoutType};
use redis::{Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use runtime_kernel::{SharedClock, TenantContext};

use crate::away::Away;
use crate::config::RedisConfig;
use crate::connection::{Blocking, Connection, Own};
use crate::error::RedisError;
use crate::place::Place;

/// The process's Redis: one server, the master that sentinels name, or a cluster. Cheap to clone.
///
/// Commands go out over one multiplexed connection, opened anew once it did not answer. Once Redis does not answer, callers
/// are told [`RedisError::Away`] at once and one of them tries again every `retry_after`; what to do without Redis is
/// each caller's own, declared decision.
///
/// After a failover, the one that tries again asks the sentinels for the master, or the cluster for its slots. A
/// cluster is away as soon as one of the nodes that are asked is.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    place: Arc<Place>,
    pool: Pool<Own>,
    away: Away,
    prefix: Box<str>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

impl Redis {
    /// A manager for what the URL names. Connects when first used, so that a process can start without.
    ///
    /// # Errors
    /// [`RedisError::Config`] names the key that is wrong, or the feature its URL needs.
    pub fn new(config: &RedisConfig, clock: SharedClock) -> Result<Self, RedisError> {
        if let Some((key, message)) = config.problem() {
            return Err(RedisError::Config { key, message: message.to_owned() });
        }
        let place = Arc::new(Place::new(config)?);
        let pool = Pool::builder(Own(Arc::clone(&place)))
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.connect_timeout))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.response_timeout))
            .build()
            .map_err(|error| RedisError::Config { key: "pool_size", message: error.to_string() })?;
        let away = Away::new(clock, config.retry_after);
        let prefix = config.prefix.clone().into_boxed_str();
        Ok(Self { inner: Arc::new(Inner { place, pool, away, prefix }) })
    }

    /// The key of a thing: `prefix:{realm/tenant}:area:key`, or `prefix:{}:area:key` for what belongs to no tenant.
    ///
    /// No two tenants and no two areas share a key, as long as an area has no `:`. All keys of a tenant live in one
    /// slot of a cluster, so that scripts may touch several of them; those of no tenant are spread over all slots.
    pub fn key(&self, tenant: Option<&TenantContext>, area: &str, key: &str) -> String {
        let tenant = tenant.map(TenantContext::namespace).unwrap_or_default();
        format!("{}:{{{tenant}}}:{area}:{key}", self.inner.prefix)
    }

    /// The key of a thing that belongs to no tenant, but with the rest of its area in one slot of a cluster, and so on
    /// one node: `prefix:{area}:key`. For what scripts and transactions must touch together.
    ///
    /// No such key is one of [`key`](Self::key)'s, as long as an area has no `/`.
    pub fn key_together(&self, area: &str, key: &str) -> String {
        format!("{}:{{{area}}}:{key}", self.inner.prefix)
    }

    /// Runs a command that does not block.
    ///
    /// Cancel-safe in so far as the connection stays sound; the command may have been carried out. A cluster is asked
    /// again when a connection breaks before the answer, so there it may have been carried out more than once.
    ///
    /// # Errors
    /// [`RedisError`]; [`RedisError::is_away`] tells Redis's absence from a wrong command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut shared = self.ask().await?;
        self.heard(command.query_async(&mut shared).await)
    }

    /// Runs commands in one round trip; with [`Pipeline::atomic`], as one transaction.
    ///
    /// In a cluster all keys must be of one slot, as those of one tenant are.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`RedisError::Refused`] when the keys are of several slots.
    pub async fn run_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisError> {
        let mut shared = self.ask().await?;
        self.heard(pipeline.query_async(&mut shared).await)
    }

    /// Runs a script by its hash in one round trip, and sends it whole only when the server does not know it.
    ///
    /// In a cluster all keys must be of one slot, and it runs on that slot's node.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`RedisError::Refused`] when the keys are of several slots.
    pub async fn run_script<T: FromRedisValue>(
        &self,
        script: impl Borrow<ScriptInvocation<'_>>,
    ) -> Result<T, RedisError> {
        let mut shared = self.ask().await?;
        self.heard(shared.invoke(script.borrow()).await)
    }

    /// A connection of one's own, for commands that block.
    ///
    /// Cancel-safe: nothing is taken from the pool.
    ///
    /// # Errors
    /// [`RedisError::PoolExhausted`] when none came free in time; [`RedisError::is_away`] when Redis is.
    pub async fn blocking(&self) -> Result<Blocking, RedisError> {
        if let Err(retry_after) = self.inner.away.may_ask() {
            return Err(RedisError::Away { retry_after });
        }
        match self.inner.pool.get().await {
            // It was opened or asked just now, so Redis is there.
            Ok(connection) => self.heard(Ok(Blocking::new(connection))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(RedisError::PoolExhausted),
            Err(PoolError::Backend(error)) => self.heard(Err(error)),
            Err(other) => {
                self.inner.away.did_not_answer();
                let error = redis::RedisError::from(std::io::Error::other(other.to_string()));
                Err(RedisError::Unreachable(error))
            }
        }
    }

    /// Asks whether it is there; of a cluster, whether every master is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.run::<String>(&redis::cmd("PING")).await.map(drop)
    }

    async fn ask(&self) -> Result<Connection, RedisError> {
        match self.inner.away.may_ask() {
            Ok(()) => self.inner.place.shared().await.or_else(|error| self.heard(Err(error))),
            Err(retry_after) => Err(RedisError::Away { retry_after }),
        }
    }

    fn heard<T>(&self, answer: redis::RedisResult<T>) -> Result<T, RedisError> {
        match answer.map_err(RedisError::of) {
            Err(error) if error.is_away() => {
                self.inner.away.did_not_answer();
                self.inner.place.forget();
                Err(error)
            }
            answer => {
                self.inner.away.answered();
                answer
            }
        }
    }
}
