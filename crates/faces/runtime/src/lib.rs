#![doc = include_str!("../README.md")]

#[doc(no_inline)]
pub use runtime_kernel as kernel;
#[doc(no_inline)]
pub use runtime_kernel::{app, config, container, lifecycle};

/// API keys.
#[cfg(feature = "apikey")]
pub use runtime_apikey as apikey;
/// The record of who did what.
#[cfg(feature = "audit")]
pub use runtime_audit as audit;
/// Outbound HTTP.
#[cfg(feature = "client")]
pub use runtime_client as client;
/// Command and query buses, projections.
#[cfg(feature = "cqrs")]
pub use runtime_cqrs as cqrs;
/// Cron expressions and schedules.
#[cfg(feature = "cron")]
pub use runtime_cron as cron;
/// SQLite and Postgres.
#[cfg(feature = "db")]
pub use runtime_db as db;
/// Watched endpoints and balancing.
#[cfg(feature = "discovery")]
pub use runtime_discovery as discovery;
/// Events: a bus, a durable log, CloudEvents.
#[cfg(feature = "events")]
pub use runtime_events as events;
/// Liveness, readiness, startup.
#[cfg(feature = "health")]
pub use runtime_health as health;
/// The HTTP edge.
#[cfg(feature = "http")]
pub use runtime_http as http;
/// Durable background jobs.
#[cfg(feature = "jobs")]
pub use runtime_jobs as jobs;
/// Concurrency limits, quotas, throttles, spilling buffers.
#[cfg(feature = "limits")]
pub use runtime_limits as limits;
/// SQL migrations.
#[cfg(feature = "migrate")]
pub use runtime_migrate as migrate;
/// Outbox and inbox.
#[cfg(feature = "outbox")]
pub use runtime_outbox as outbox;
/// Hardened AI and embedding providers.
#[cfg(feature = "providers")]
pub use runtime_providers as providers;
/// Rate limits.
#[cfg(feature = "ratelimit")]
pub use runtime_ratelimit as ratelimit;
/// Redis.
#[cfg(feature = "redis")]
pub use runtime_redis as redis;
/// Retry policies.
#[cfg(feature = "resilience")]
pub use runtime_resilience as resilience;
/// Canary and blue-green releases.
#[cfg(feature = "rollout")]
pub use runtime_rollout as rollout;
/// Durable orchestration with compensation.
#[cfg(feature = "saga")]
pub use runtime_saga as saga;
/// Secret strings and where they come from.
#[cfg(feature = "secrets")]
pub use runtime_secrets as secrets;
/// Logs, metrics, traces.
#[cfg(feature = "telemetry")]
pub use runtime_telemetry as telemetry;
/// Realm, tenant, organisation.
#[cfg(feature = "tenancy")]
pub use runtime_tenancy as tenancy;
/// Approvals and tasks.
#[cfg(feature = "workflow")]
pub use runtime_workflow as workflow;

/// What nearly every service names.
pub mod prelude {
    pub use runtime_kernel::app::{App, Module, Run, Service, SetupError};
    pub use runtime_kernel::config::{Config, Section};
    pub use runtime_kernel::container::{Container, Token};
    pub use runtime_kernel::{Classify, Clock, Context, Deadline, Error, ErrorKind, Mode, Retry};

    #[cfg(feature = "http")]
    pub use runtime_http::axum::extract::State;
    #[cfg(feature = "http")]
    pub use runtime_http::{Ctx, HttpApp, HttpModule, Json, Path, Query, Route};
    #[cfg(feature = "jobs")]
    pub use runtime_jobs::{JOBS, JobContext, JobKind, JobsModule, NewJob};
}

/// The guide's examples, run with those of the crates.
#[cfg(all(doctest, feature = "full"))]
mod guide {
    #[doc = include_str!("../../../../docs/src/start.md")]
    struct Start;
    #[doc = include_str!("../../../../docs/src/concepts.md")]
    struct Concepts;
    #[doc = include_str!("../../../../docs/architecture.md")]
    struct Architecture;
}
