#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    allow(unused, clippy::pedantic, reason = "without a backend there is nothing to drive")
)]

mod backend;
#[cfg(feature = "postgres")]
mod bell;
mod config;
mod connection;
mod database;
mod either;
mod error;
mod fingerprint;
#[cfg(feature = "module")]
mod module;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod retry;
#[cfg(feature = "sqlite")]
mod sqlite;
mod transaction;
mod watch;

pub use backend::Backend;
#[cfg(feature = "postgres")]
pub use bell::Bell;
pub use config::{DbConfig, Migrate, Synchronous};
pub use connection::Conn;
pub use database::{Database, Dialect};
pub use error::DbError;
pub use fingerprint::fingerprint;
#[cfg(feature = "module")]
pub use module::{DB, DbModule};
pub use pool::Pool;
#[cfg(feature = "postgres")]
pub use postgres::{PgConn, PgPool};
pub use retry::LostRace;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteConn, SqlitePool, SqlitePools};
pub use sqlx;
pub use transaction::{Savepoint, Tx};
pub use watch::StatementStats;
