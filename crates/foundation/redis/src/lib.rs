#![doc = include_str!("../README.md")]

mod away;
#[cfg(feature = "cluster")]
mod cluster;
mod config;
mod connection;
mod error;
#[cfg(any(feature = "sentinel", feature = "cluster"))]
mod hosts;
mod manager;
#[cfg(feature = "module")]
mod module;
mod place;
#[cfg(feature = "sentinel")]
mod sentinel;
mod shared;

pub use config::RedisConfig;
pub use connection::Blocking;
pub use error::RedisError;
pub use manager::Redis;
#[cfg(feature = "module")]
pub use module::{REDIS, RedisModule};
pub use redis::{Cmd, FromRedisValue, Pipeline, Script, ToRedisArgs, Value, cmd, pipe};
