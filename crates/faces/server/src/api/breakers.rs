//! `/v1/breakers`: the circuit breakers, and orders to them.

use http::StatusCode;
use runtime_http::axum::extract::State;
use runtime_http::{Ctx, HttpApp, Json, Path, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, ErrorKind};
use runtime_resilience::{CircuitBreaker, PIPELINES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operators_only;

const TAG: &str = "breakers";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/breakers", list)
            .summary("Lists the circuit breakers of the pipelines.")
            .tag(TAG)
            .scope("breakers:read")
            .answers::<BreakerList>(200, "The breakers.")
            .problems(&[403]),
    );
    app.route(
        Route::put("/v1/breakers/{name}", order)
            .summary("Forces a breaker open, disables it, has it only watch, or gives it back to itself.")
            .tag(TAG)
            .scope("breakers:write")
            .path::<ByName>()
            .takes::<Order>()
            .answers::<BreakerView>(200, "The breaker, as ordered.")
            .problems(&[403, 404]),
    );
}

/// Which breaker.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByName {
    /// The name of its pipeline.
    #[schemars(length(min = 1, max = 128))]
    name: String,
}

/// The breakers.
#[derive(Debug, Serialize, JsonSchema)]
struct BreakerList {
    /// By name.
    breakers: Vec<BreakerView>,
}

/// A breaker.
#[derive(Debug, Serialize, JsonSchema)]
struct BreakerView {
    /// The name of its pipeline.
    name: String,
    /// closed, open, `half_open`, `forced_open`, disabled or `metrics_only`.
    state: &'static str,
    /// Calls in its window.
    calls: u64,
    /// Those that failed.
    failed: u64,
    /// Those that were slow.
    slow: u64,
    /// Calls it has refused since the process began.
    rejected: u64,
}

impl From<&CircuitBreaker> for BreakerView {
    fn from(breaker: &CircuitBreaker) -> Self {
        let seen = breaker.snapshot();
        Self {
            name: breaker.name().to_owned(),
            state: seen.state.as_str(),
            calls: seen.calls,
            failed: seen.failed,
            slow: seen.slow,
            rejected: seen.rejected,
        }
    }
}

/// What a breaker is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    /// What it shall be.
    state: Wanted,
}

/// What a breaker can be told to be.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    /// Refuses every call.
    ForcedOpen,
    /// Lets every call through and looks at none.
    Disabled,
    /// Counts, and never opens.
    MetricsOnly,
    /// Closed, and on its own again.
    Closed,
}

/// The calls a breaker guards are every tenant's.
fn only_operators(context: &Context) -> std::result::Result<(), Error> {
    operators_only(context, "breakers.operators_only", "circuit breakers are shared by all tenants")
}

async fn list(State(container): State<Container>, Ctx(context): Ctx) -> Result<Json<BreakerList>> {
    only_operators(&context)?;
    let pipelines = container.get(PIPELINES).await?;
    Ok(Json(BreakerList { breakers: pipelines.breakers().map(BreakerView::from).collect() }))
}

async fn order(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<BreakerView>)> {
    only_operators(&context)?;
    let pipelines = container.get(PIPELINES).await?;
    let unknown =
        || Error::new(ErrorKind::NotFound, "breaker.unknown", format!("no circuit breaker `{name}`"));
    let breaker = pipelines.breaker(&name).ok_or_else(unknown)?;
    match order.state {
        Wanted::ForcedOpen => breaker.force_open(),
        Wanted::Disabled => breaker.disable(),
        Wanted::MetricsOnly => breaker.watch_only(),
        Wanted::Closed => breaker.reset(),
    }
    Ok((StatusCode::OK, Json(BreakerView::from(breaker))))
}
