#![doc = include_str!("../README.md")]

mod bus;
mod call;
mod error;
pub mod idempotency;
#[cfg(feature = "testkit")]
#[expect(clippy::expect_used, reason = "a broken law fails by panicking")]
pub mod laws;
mod memory;
mod middleware;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod projection;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod run;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod transactional;

pub use bus::{Command, CommandBus, CommandBusBuilder, Query, QueryBus, QueryBusBuilder};
pub use call::{Answer, Call, Middleware, Next};
pub use error::CqrsError;
pub use idempotency::{IdempotencyStore, Idempotent};
pub use memory::MemoryIdempotency;
pub use middleware::{Authorise, Timed, Validate};
#[cfg(feature = "module")]
pub use module::{COMMANDS, CqrsHandlers, CqrsModule, IDEMPOTENCY, QUERIES};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use projection::{Projection, Projector};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlIdempotency;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use transactional::{Repeat, Transactional};
