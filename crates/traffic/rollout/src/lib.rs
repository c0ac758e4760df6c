#![doc = include_str!("../README.md")]

mod analysis;
mod assign;
mod config;
mod control;
mod error;
#[cfg(feature = "testkit")]
pub mod laws;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(feature = "module")]
mod module;
#[cfg(feature = "proxy")]
mod proxy;
#[cfg(feature = "http")]
mod service;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod state;
mod store;

pub use analysis::{Analysis, AnalysisConfig, Counts, Verdict};
pub use assign::bucket;
pub use config::{RolloutConfig, RoutesConfig, Sticky};
pub use control::{Change, Order, Rollouts};
pub use error::RolloutError;
pub use memory::MemoryRollouts;
#[cfg(feature = "module")]
pub use module::{ROLLOUTS, RolloutModule};
#[cfg(feature = "proxy")]
pub use proxy::{Upstream, UpstreamFuture};
#[cfg(feature = "http")]
pub use service::{RolloutFuture, RolloutService, Subject};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlRollouts;
pub use state::{Kind, Phase, Plan, Rollout, Side, Step, WHOLE};
pub use store::{Evidence, RolloutStore};
