//! The fixed names of the house's own metrics, so that dashboards and alerts outlive refactorings.
//!
//! Where OpenTelemetry's semantic conventions name the same thing, their name is taken, spelled the Prometheus way.

/// Gauge `{service, version}`: what runs here.
pub const BUILD_INFO: &str = "build_info";

/// Histogram `{method, route, status}`, seconds: from the request's head to its answer's last byte.
pub const HTTP_SERVER_REQUEST_DURATION_SECONDS: &str = "http_server_request_duration_seconds";
/// Gauge: requests being answered.
pub const HTTP_SERVER_ACTIVE_REQUESTS: &str = "http_server_active_requests";
/// Histogram `{method, route}`, bytes: request bodies.
pub const HTTP_SERVER_REQUEST_BODY_SIZE_BYTES: &str = "http_server_request_body_size_bytes";
/// Histogram `{method, route}`, bytes: response bodies.
pub const HTTP_SERVER_RESPONSE_BODY_SIZE_BYTES: &str = "http_server_response_body_size_bytes";
/// Gauge: open connections.
pub const HTTP_SERVER_OPEN_CONNECTIONS: &str = "http_server_open_connections";
/// Counter `{reason}`: connections closed or refused by a limit.
pub const HTTP_SERVER_REJECTED_CONNECTIONS_TOTAL: &str = "http_server_rejected_connections_total";
/// Counter `{route}`: handlers that panicked.
pub const HTTP_SERVER_PANICS_TOTAL: &str = "http_server_panics_total";

/// Histogram `{method, host, status}`, seconds: outbound requests, one observation per attempt.
pub const HTTP_CLIENT_REQUEST_DURATION_SECONDS: &str = "http_client_request_duration_seconds";
/// Gauge: outbound requests under way.
pub const HTTP_CLIENT_ACTIVE_REQUESTS: &str = "http_client_active_requests";
/// Counter `{host}`: outbound attempts after the first.
pub const HTTP_CLIENT_RETRIES_TOTAL: &str = "http_client_retries_total";

/// Gauge `{breaker, state}`: 1 for the state a circuit breaker is in, 0 for the others.
pub const CIRCUIT_BREAKER_STATE: &str = "circuit_breaker_state";
/// Gauge `{breaker}`: the share of failed calls in a circuit breaker's window.
pub const CIRCUIT_BREAKER_FAILURE_RATIO: &str = "circuit_breaker_failure_ratio";
/// Counter `{breaker}`: calls a circuit breaker refused.
pub const CIRCUIT_BREAKER_REJECTED_TOTAL: &str = "circuit_breaker_rejected_total";
/// Counter `{breaker, to}`: changes of a circuit breaker's state.
pub const CIRCUIT_BREAKER_TRANSITIONS_TOTAL: &str = "circuit_breaker_transitions_total";

/// Counter `{rule, decision}` with decision `admitted`, `refused` or `would_refuse`: requests a limit judged.
pub const RATELIMIT_DECISIONS_TOTAL: &str = "ratelimit_decisions_total";

/// Gauge `{rollout}`: the canary's share of the requests, 0 to 1.
pub const ROLLOUT_WEIGHT: &str = "rollout_weight";
/// Counter `{rollout, to}`: changes of a rollout's phase.
pub const ROLLOUT_CHANGES_TOTAL: &str = "rollout_changes_total";

/// Gauge `{service, state}` with state `in` or `out`: endpoints of a service that are called, or left alone.
pub const DISCOVERY_ENDPOINTS: &str = "discovery_endpoints";

/// Gauge `{limit}`: how many requests may be under way.
pub const LIMITS_CONCURRENCY_LIMIT: &str = "limits_concurrency_limit";
/// Gauge `{limit}`: how many requests are.
pub const LIMITS_CONCURRENCY_IN_FLIGHT: &str = "limits_concurrency_in_flight";
/// Gauge `{limit}`: how many requests wait for a place.
pub const LIMITS_CONCURRENCY_WAITING: &str = "limits_concurrency_waiting";
/// Counter `{limit}`: requests that found no place.
pub const LIMITS_CONCURRENCY_REJECTED_TOTAL: &str = "limits_concurrency_rejected_total";

/// Counter `{target, outcome}` with outcome `answered` or an error's code: attempts at providers.
pub const PROVIDERS_ATTEMPTS_TOTAL: &str = "providers_attempts_total";
/// Counter `{target, kind}` with kind `prompt` or `completion`: tokens used at providers.
pub const PROVIDERS_TOKENS_TOTAL: &str = "providers_tokens_total";
/// Counter `{target}`: what was spent at providers, in millionths of a dollar, each call rounded up.
pub const PROVIDERS_COST_MICROS_TOTAL: &str = "providers_cost_micros_total";

/// Histogram `{system, operation, outcome}`, seconds: statements.
pub const DB_CLIENT_OPERATION_DURATION_SECONDS: &str = "db_client_operation_duration_seconds";
/// Gauge `{pool, state}` with state `idle` or `used`: pooled connections.
pub const DB_CLIENT_CONNECTIONS: &str = "db_client_connections";
/// Histogram `{pool}`, seconds: waiting for a pooled connection.
pub const DB_CLIENT_CONNECTION_WAIT_SECONDS: &str = "db_client_connection_wait_seconds";
/// Counter `{pool}`: waits for a pooled connection that timed out.
pub const DB_CLIENT_CONNECTION_TIMEOUTS_TOTAL: &str = "db_client_connection_timeouts_total";

/// Counter `{kind}`: jobs accepted.
pub const JOBS_ENQUEUED_TOTAL: &str = "jobs_enqueued_total";
/// Counter `{kind, outcome}` with outcome `done`, `retry`, `dead` or `cancelled`: attempts that ended.
pub const JOBS_ATTEMPTS_TOTAL: &str = "jobs_attempts_total";
/// Histogram `{kind}`, seconds: one attempt's run.
pub const JOBS_RUN_DURATION_SECONDS: &str = "jobs_run_duration_seconds";
/// Histogram `{kind}`, seconds: from due to claimed.
pub const JOBS_WAIT_DURATION_SECONDS: &str = "jobs_wait_duration_seconds";
/// Gauge `{state}`: jobs in the store.
pub const JOBS_STORED: &str = "jobs_stored";
/// Gauge: jobs running in this process.
pub const JOBS_RUNNING: &str = "jobs_running";
/// Counter: leases lost to another worker, or run out.
pub const JOBS_LEASES_LOST_TOTAL: &str = "jobs_leases_lost_total";
/// Counter: completions refused because the lease was another's.
pub const JOBS_STALE_COMPLETIONS_TOTAL: &str = "jobs_stale_completions_total";
/// Gauge `{kind}`: queued jobs of a kind nobody handles.
pub const JOBS_UNHANDLED: &str = "jobs_unhandled";

/// Counter `{action, outcome}` with outcome `done`, `retry`, `failed`, `skipped`, `missed` or `lost`: ticks of schedules.
pub const CRON_TICKS_TOTAL: &str = "cron_ticks_total";
/// Histogram `{action}`, seconds: from when a tick was meant to begin to when it did.
pub const CRON_TICK_LATENESS_SECONDS: &str = "cron_tick_lateness_seconds";
/// Gauge: 1 where this process leads the schedulers.
pub const CRON_LEADER: &str = "cron_leader";
/// Counter `{outcome}` with outcome `new` or `duplicate`: events published to the log by this process.
pub const EVENTS_PUBLISHED_TOTAL: &str = "events_published_total";
/// Counter `{subscription, outcome}` with outcome `done`, `retry`, `parked` or `behind`: attempts at events.
pub const EVENTS_HANDLED_TOTAL: &str = "events_handled_total";
/// Histogram `{subscription}`, seconds: one attempt at an event.
pub const EVENTS_HANDLE_DURATION_SECONDS: &str = "events_handle_duration_seconds";
/// Counter `{subscription}`: settlements refused because the claim was another's.
pub const EVENTS_STALE_SETTLEMENTS_TOTAL: &str = "events_stale_settlements_total";
/// Gauge `{subscription, state}` with state `unread`, `retrying` or `parked`: events a subscription has not done with.
pub const EVENTS_STORED: &str = "events_stored";
/// Gauge `{subscription}`, seconds: the age of the oldest event a subscription has not read; 0 without one.
pub const EVENTS_OLDEST_UNREAD_SECONDS: &str = "events_oldest_unread_seconds";
/// Counter `{channel, outcome}` with outcome `sent`, `duplicate`, `retry` or `parked`: tries at messages of the outbox.
pub const OUTBOX_MESSAGES_TOTAL: &str = "outbox_messages_total";
/// Histogram `{channel}`, seconds: one call of a sink.
pub const OUTBOX_PUBLISH_DURATION_SECONDS: &str = "outbox_publish_duration_seconds";
/// Counter `{channel}`: claims another relay took because they had run out.
pub const OUTBOX_CLAIMS_LOST_TOTAL: &str = "outbox_claims_lost_total";
/// Gauge `{channel, state}` with state `ready`, `retrying`, `behind` or `parked`: messages not sent.
pub const OUTBOX_STORED: &str = "outbox_stored";
/// Gauge `{channel}`, seconds: the age of the oldest message neither sent nor parked; 0 without one.
pub const OUTBOX_OLDEST_UNSENT_SECONDS: &str = "outbox_oldest_unsent_seconds";
/// Counter `{saga, outcome}` with outcome `completed` or `compensated`: sagas that are over.
pub const SAGA_ENDED_TOTAL: &str = "saga_ended_total";
/// Counter `{saga, reason}`: sagas that were parked for an operator.
pub const SAGA_PARKED_TOTAL: &str = "saga_parked_total";
/// Histogram `{saga}`, seconds: how long a worker had a saga in hand at a time.
pub const SAGA_TURN_DURATION_SECONDS: &str = "saga_turn_duration_seconds";
/// Counter: claims of sagas that ended because the lease was another's.
pub const SAGA_LEASES_LOST_TOTAL: &str = "saga_leases_lost_total";
/// Gauge: sagas that are parked, of all types and tenants.
pub const SAGA_PARKED: &str = "saga_parked";
/// Counter `{definition, event}`: what happened to instances of workflows, by the event's name.
pub const WORKFLOW_EVENTS_TOTAL: &str = "workflow_events_total";
/// Gauge `{state}` with state `open` or `overdue`: tasks somebody is asked to decide.
pub const WORKFLOW_TASKS: &str = "workflow_tasks";
/// Gauge: instances of workflows with a step that cannot go on by itself.
pub const WORKFLOW_PARKED: &str = "workflow_parked";
/// Gauge `{check}`: 1 healthy, 0.5 degraded, 0 unhealthy.
pub const HEALTH_CHECK_STATUS: &str = "health_check_status";
/// Counter `{severity}`: audit events written.
pub const AUDIT_EVENTS_TOTAL: &str = "audit_events_total";
/// Counter: audit events dropped because the queue was full.
pub const AUDIT_DROPPED_TOTAL: &str = "audit_dropped_total";
/// Counter `{metric}`: lookups of label sets beyond the cap.
pub const METRICS_OVERFLOW: &str = "telemetry_metrics_overflow_total";
/// Counter `{metric}`: lookups of label sets that did not fit their metric.
pub const METRICS_REJECTED: &str = "telemetry_metrics_rejected_total";
