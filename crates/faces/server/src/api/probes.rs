//! Probes and metrics, served by every mode.

use std::collections::BTreeMap;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use runtime_health::{HEALTH, Report};
use runtime_http::axum::extract::State;
use runtime_http::axum::response::{IntoResponse, Response};
use runtime_http::{HttpApp, Json, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_telemetry::{METRICS, Metrics};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) fn routes(app: &mut App) {
    let probe = |route: Route<Container>, summary| {
        route
            .summary(summary)
            .tag("operations")
            .public()
            .unlogged()
            .answers::<Probe>(200, "Yes.")
            .answers::<Probe>(503, "Not for now.")
    };
    app.route_everywhere(probe(Route::get("/livez", live), "Whether the process runs."));
    app.route_everywhere(probe(Route::get("/readyz", ready), "Whether requests should be sent here."));
    app.route_everywhere(probe(Route::get("/startupz", started), "Whether the process has started."));
    app.route_everywhere(
        Route::get("/metrics", metrics)
            .summary("Metrics in the Prometheus text format.")
            .tag("operations")
            .public()
            .unlogged()
            .answers_text(200, "text/plain", "The metrics."),
    );
}

/// What a probe answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Probe {
    /// healthy, degraded or unhealthy.
    status: String,
    /// What the checks found, by name.
    checks: BTreeMap<String, String>,
}

fn answer(report: &Report) -> Response {
    let checks = report
        .checks
        .iter()
        .map(|check| (check.name.to_string(), check.status.as_str().to_owned()))
        .collect();
    let status = StatusCode::from_u16(report.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Json(Probe { status: report.status.as_str().to_owned(), checks }).status(status)
}

async fn live(State(container): State<Container>) -> Result<Response> {
    Ok(answer(&container.get(HEALTH).await?.liveness()))
}

async fn ready(State(container): State<Container>) -> Result<Response> {
    Ok(answer(&container.get(HEALTH).await?.readiness()))
}

async fn started(State(container): State<Container>) -> Result<Response> {
    Ok(answer(&container.get(HEALTH).await?.startup()))
}

async fn metrics(State(container): State<Container>) -> Result<Response> {
    let text = container.get(METRICS).await?.render();
    Ok(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response())
}
