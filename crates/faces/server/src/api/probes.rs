//! Probes and metrics, served by every mode.

use std::collections::BTreeMap;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use runtime_health::{HEALTH, HealthRegistry, Report};
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
    /// Why the process itself says no, whatever its checks say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Features that are switched off meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disabled: Vec<String>,
    /// What the checks found, by name.
    checks: BTreeMap<String, String>,
    /// What they said, by name: with `health.show_details`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    messages: BTreeMap<String, String>,
}

fn answer(health: &HealthRegistry, report: &Report) -> Response {
    let said = report.checks.iter().filter(|_| health.shows_details());
    let said = said.filter_map(|check| Some((check.name.to_string(), check.message.as_deref()?.to_owned())));
    let checks = report
        .checks
        .iter()
        .map(|check| (check.name.to_string(), check.status.as_str().to_owned()))
        .collect();
    let status = StatusCode::from_u16(report.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let probe = Probe {
        status: report.status.as_str().to_owned(),
        reason: report.reason.as_deref().map(str::to_owned),
        disabled: report.disabled.clone(),
        checks,
        messages: said.collect(),
    };
    Json(probe).status(status)
}

async fn live(State(container): State<Container>) -> Result<Response> {
    let health = container.get(HEALTH).await?;
    Ok(answer(&health, &health.liveness()))
}

async fn ready(State(container): State<Container>) -> Result<Response> {
    let health = container.get(HEALTH).await?;
    Ok(answer(&health, &health.readiness()))
}

async fn started(State(container): State<Container>) -> Result<Response> {
    let health = container.get(HEALTH).await?;
    Ok(answer(&health, &health.startup()))
}

async fn metrics(State(container): State<Container>) -> Result<Response> {
    let text = container.get(METRICS).await?.render();
    Ok(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response())
}
