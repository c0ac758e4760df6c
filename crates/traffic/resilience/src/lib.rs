#![doc = include_str!("../README.md")]

mod breaker;
#[cfg(feature = "backoff")]
pub mod compat;
mod config;
mod delays;
mod error;
mod jitter;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "module")]
mod module;
mod named;
mod policy;
mod rejection;
mod run;

pub use breaker::{
    BreakerConfig, BreakerSnapshot, BreakerState, Breakers, CircuitBreaker, Machine, Outcome, OwnedPermit,
    Permit, Transition, Window,
};
pub use config::{Backoff, Jitter, PolicyError, RetryConfig};
pub use delays::Delays;
pub use error::{Cause, Failure, RetryError, Stop};
pub use jitter::SharedRng;
#[cfg(feature = "tower")]
pub use layer::{Replay, RetryFuture, RetryLayer, RetryService};
#[cfg(feature = "module")]
pub use module::{RETRY_POLICIES, ResilienceModule};
pub use named::{ResilienceConfig, RetryPolicies, UnknownPolicy};
pub use policy::RetryPolicy;
pub use rejection::{Guarded, Rejection};
pub use run::{retry, retry_classified, retry_with};
