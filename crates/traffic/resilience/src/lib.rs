#![doc = include_str!("../README.md")]

mod breaker;
mod budget;
mod bulkhead;
#[cfg(feature = "backoff")]
pub mod compat;
mod config;
mod delays;
mod error;
#[cfg(feature = "tower")]
mod guard;
mod hedge;
mod jitter;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "module")]
mod metrics;
#[cfg(feature = "module")]
mod module;
mod named;
mod pipeline;
mod policy;
mod rejection;
mod run;
mod times;

pub use breaker::{
    BreakerConfig, BreakerSnapshot, BreakerState, Breakers, CircuitBreaker, Machine, Outcome, OwnedPermit,
    Permit, Transition, Window,
};
pub use budget::{BudgetConfig, RetryBudget};
pub use bulkhead::{Bulkhead, BulkheadConfig, Bulkheads, Place};
pub use config::{Backoff, Jitter, PolicyError, RetryConfig};
pub use delays::Delays;
pub use error::{Cause, Failure, RetryError, Stop};
#[cfg(feature = "tower")]
pub use guard::{
    BreakerLayer, BreakerService, BulkheadLayer, BulkheadService, GuardedFuture, Judge, TimeoutFuture,
    TimeoutLayer, TimeoutService,
};
pub use hedge::{HedgeConfig, hedge};
pub use jitter::SharedRng;
#[cfg(feature = "tower")]
pub use layer::{HedgeLayer, HedgeService, Replay, RetryFuture, RetryLayer, RetryService};
#[cfg(feature = "module")]
pub use module::{PIPELINES, RETRY_POLICIES, ResilienceModule};
pub use named::{PipelineConfig, Pipelines, ResilienceConfig, RetryPolicies, UnknownPolicy};
pub use pipeline::{Pipeline, Repeat};
pub use policy::RetryPolicy;
pub use rejection::{Guarded, Rejection};
pub use run::{retry, retry_with};
pub use times::{
    GRPC_TIMEOUT, X_REQUEST_TIMEOUT, grpc_timeout, parse_grpc_timeout, parse_request_timeout, request_timeout,
};
