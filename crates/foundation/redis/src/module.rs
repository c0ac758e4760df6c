//! Wires Redis into an `App`.

use std::sync::Arc;

use runtime_health::{HealthApp, Outcome};
use runtime_kernel::Error;
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;

use crate::config::RedisConfig;
use crate::manager::Redis;

/// The process's Redis.
pub const REDIS: Token<Redis> = Token::new("adapter.redis");

impl Section for RedisConfig {
    const PATH: &'static str = "redis";
    const LOCKED: &'static [&'static str] = &["url"];
    const SECRET: &'static [&'static str] = &["url"];

    fn validate(&self) -> Result<(), Invalid> {
        self.problem().map_or(Ok(()), |(key, message)| Err(Invalid::new(key, message)))
    }
}

/// Reads the section `redis`. With a URL it provides [`REDIS`] and an optional health check: Redis being away degrades
/// the service, and does not make it unready, because every user of it declares what happens then.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisModule;

impl Module for RedisModule {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: RedisConfig = app.section()?;
        if config.url.is_empty() {
            return Ok(());
        }
        let redis = Redis::new(&config, app.shared_clock())
            .map_err(|error| SetupError::Module { module: "redis", message: error.to_string() })?;
        app.services().value(REDIS, Arc::new(redis));
        app.health_check_with("redis", runtime_health::Check::optional, |container| async move {
            let answer = async { container.get(REDIS).await?.ping().await.map_err(Error::from) };
            Outcome::from(answer.await)
        });
        Ok(())
    }
}
