//! The connections: one shared by everybody who does not block, a pool for those who do.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use runtime_kernel::{SharedClock, TenantContext};

use crate::away::Away;
use crate::config::RedisConfig;
use crate::error::RedisError;

/// A connection for commands that block; it returns to the pool when dropped.
pub type Blocking = deadpool_redis::Connection;

/// The process's Redis. Cheap to clone.
///
/// Commands go out over one multiplexed connection, which reconnects by itself. Once Redis does not answer, callers
/// are told [`RedisError::Away`] at once and one of them tries again every `retry_after`; what to do without Redis is
/// each caller's own, declared decision.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    shared: ConnectionManager,
    pool: Pool,
    away: Away,
    prefix: Box<str>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

impl Redis {
    /// A manager for the server of the configuration. Connects when first used, so that a process can start without.
    ///
    /// # Errors
    /// [`RedisError::Config`] names the key that is wrong.
    pub fn new(config: &RedisConfig, clock: SharedClock) -> Result<Self, RedisError> {
        if let Some((key, message)) = config.problem() {
            return Err(RedisError::Config { key, message: message.to_owned() });
        }
        // The library's message does not repeat the URL, which may hold a password.
        let wrong = |error: redis::RedisError| RedisError::Config { key: "url", message: error.to_string() };
        let client = Client::open(config.url.as_str()).map_err(wrong)?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout))
            // Trying again is paced by `Away`; a caller must not be held meanwhile.
            .set_number_of_retries(0)
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(Duration::from_millis(100));
        let shared = ConnectionManager::new_lazy_with_config(client, settings).map_err(wrong)?;
        let manager = Manager::new(config.url.as_str()).map_err(wrong)?;
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.connect_timeout))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.response_timeout))
            .build()
            .map_err(|error| RedisError::Config { key: "pool_size", message: error.to_string() })?;
        let away = Away::new(clock, config.retry_after);
        let prefix = config.prefix.clone().into_boxed_str();
        Ok(Self { inner: Arc::new(Inner { shared, pool, away, prefix }) })
    }

    /// The key of a thing: `prefix:{realm/tenant}:area:key`, or `prefix:{}:area:key` for what belongs to no tenant.
    ///
    /// No two tenants and no two areas share a key, as long as an area has no `:`. All keys of a tenant live in one
    /// slot of a cluster, so that scripts may touch several of them.
    pub fn key(&self, tenant: Option<&TenantContext>, area: &str, key: &str) -> String {
        let tenant = tenant.map(TenantContext::namespace).unwrap_or_default();
        format!("{}:{{{tenant}}}:{area}:{key}", self.inner.prefix)
    }

    /// Runs a command that does not block.
    ///
    /// Cancel-safe in so far as the connection stays sound; the command may have been carried out.
    ///
    /// # Errors
    /// [`RedisError`]; [`RedisError::is_away`] tells Redis's absence from a wrong command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut shared = self.ask()?;
        self.heard(command.query_async(&mut shared).await)
    }

    /// Runs commands in one round trip; with [`Pipeline::atomic`], as one transaction.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisError> {
        let mut shared = self.ask()?;
        self.heard(pipeline.query_async(&mut shared).await)
    }

    /// Runs a script by its hash in one round trip, and sends it whole only when the server does not know it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_script<T: FromRedisValue>(
        &self,
        script: impl Borrow<ScriptInvocation<'_>>,
    ) -> Result<T, RedisError> {
        let mut shared = self.ask()?;
        self.heard(script.borrow().invoke_async(&mut shared).await)
    }

    /// A connection of one's own, for commands that block.
    ///
    /// # Errors
    /// [`RedisError::PoolExhausted`] when none came free in time.
    pub async fn blocking(&self) -> Result<Blocking, RedisError> {
        if let Err(retry_after) = self.inner.away.may_ask() {
            return Err(RedisError::Away { retry_after });
        }
        match self.inner.pool.get().await {
            Ok(connection) => Ok(connection),
            Err(PoolError::Timeout(deadpool_redis::TimeoutType::Wait)) => Err(RedisError::PoolExhausted),
            Err(PoolError::Backend(error)) => self.heard(Err(error)),
            Err(other) => {
                self.inner.away.did_not_answer();
                let error = redis::RedisError::from(std::io::Error::other(other.to_string()));
                Err(RedisError::Unreachable(error))
            }
        }
    }

    /// Asks whether it is there.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.run::<String>(&redis::cmd("PING")).await.map(drop)
    }

    fn ask(&self) -> Result<ConnectionManager, RedisError> {
        match self.inner.away.may_ask() {
            Ok(()) => Ok(self.inner.shared.clone()),
            Err(retry_after) => Err(RedisError::Away { retry_after }),
        }
    }

    fn heard<T>(&self, answer: redis::RedisResult<T>) -> Result<T, RedisError> {
        match answer.map_err(RedisError::of) {
            Err(error) if error.is_away() => {
                self.inner.away.did_not_answer();
                Err(error)
            }
            answer => {
                self.inner.away.answered();
                answer
            }
        }
    }
}
