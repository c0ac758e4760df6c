#![doc = include_str!("../README.md")]

mod away;
mod config;
mod error;
mod manager;
#[cfg(feature = "module")]
mod module;

pub use config::RedisConfig;
pub use error::RedisError;
pub use manager::{Blocking, Redis};
#[cfg(feature = "module")]
pub use module::{REDIS, RedisModule};
pub use redis::{Cmd, FromRedisValue, Pipeline, Script, ToRedisArgs, Value, cmd, pipe};
