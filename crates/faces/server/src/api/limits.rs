//! `/v1/limits`: the rate limit rules, single buckets, and how many requests are under way.

use std::time::Duration;

use http::StatusCode;
use runtime_http::axum::extract::State;
use runtime_http::{Ctx, HttpApp, Json, Path, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, units};
use runtime_limits::{CONCURRENCY, NamedLimit};
use runtime_ratelimit::{RATE_LIMITS, RuleInfo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operators_only;

const TAG: &str = "limits";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/limits", list)
            .summary("Lists the rate limit rules, and the limits on requests under way.")
            .tag(TAG)
            .scope("limits:read")
            .answers::<LimitList>(200, "The limits.")
            .problems(&[403]),
    );
    app.route(
        Route::get("/v1/limits/{rule}/{subject}", peek)
            .summary("Says where a subject stands at a rule.")
            .tag(TAG)
            .scope("limits:read")
            .path::<Bucket>()
            .answers::<BucketView>(200, "Where it stands.")
            .problems(&[403, 404]),
    );
    app.route(
        Route::delete("/v1/limits/{rule}/{subject}", reset)
            .summary("Forgives what a subject has taken at a rule.")
            .tag(TAG)
            .scope("limits:write")
            .path::<Bucket>()
            .answers_empty(204, "Its bucket is full.")
            .problems(&[403, 404]),
    );
}

/// Which bucket.
#[derive(Debug, Deserialize, JsonSchema)]
struct Bucket {
    /// The rule's name.
    #[schemars(length(min = 1, max = 64))]
    rule: String,
    /// What the rule counts by: an address, `realm/tenant:key:id`, several joined by `|`.
    #[schemars(length(min = 1, max = 1024))]
    subject: String,
}

/// The limits.
#[derive(Debug, Serialize, JsonSchema)]
struct LimitList {
    /// The rate limit rules, in the order they are written.
    rules: Vec<RuleView>,
    /// The limits on requests under way.
    concurrency: Vec<ConcurrencyView>,
}

/// A limit on requests under way.
#[derive(Debug, Serialize, JsonSchema)]
struct ConcurrencyView {
    /// `server`, or a rule's name, or that and a route.
    name: String,
    /// How many may be under way now.
    limit: u32,
    /// How many are.
    in_flight: u32,
    /// How many wait.
    waiting: usize,
    /// How many have been turned away since the start.
    rejected: u64,
}

impl From<NamedLimit> for ConcurrencyView {
    fn from(NamedLimit { name, limit, .. }: NamedLimit) -> Self {
        Self {
            name,
            limit: limit.limit(),
            in_flight: limit.in_flight(),
            waiting: limit.waiting(),
            rejected: limit.rejected(),
        }
    }
}

/// A rule.
#[derive(Debug, Serialize, JsonSchema)]
struct RuleView {
    /// Its name.
    name: String,
    /// What it counts by.
    by: Vec<String>,
    /// How many tokens its buckets hold.
    burst: u32,
    /// How long an empty bucket takes to fill.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    fill_time: Duration,
    /// Whether it only watches.
    shadow: bool,
}

impl From<RuleInfo<'_>> for RuleView {
    fn from(rule: RuleInfo<'_>) -> Self {
        Self {
            name: rule.name.to_owned(),
            by: rule.by.iter().map(ToString::to_string).collect(),
            burst: rule.rate.burst(),
            fill_time: rule.rate.fill_time(),
            shadow: rule.shadow,
        }
    }
}

/// A bucket.
#[derive(Debug, Serialize, JsonSchema)]
struct BucketView {
    /// How many tokens it has now.
    remaining: u32,
    /// How many it holds.
    burst: u32,
    /// How long until it is full.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    reset_after: Duration,
}

/// Buckets are anybody's, whatever their subject says, and so are the server's limits.
fn only_operators(context: &Context) -> std::result::Result<(), Error> {
    operators_only(context, "limits.operators_only", "limits are shared by all tenants")
}

async fn list(State(container): State<Container>, Ctx(context): Ctx) -> Result<Json<LimitList>> {
    only_operators(&context)?;
    let limits = container.get(RATE_LIMITS).await?;
    let concurrency = container.get(CONCURRENCY).await?.limits();
    Ok(Json(LimitList {
        rules: limits.rules().map(RuleView::from).collect(),
        concurrency: concurrency.into_iter().map(ConcurrencyView::from).collect(),
    }))
}

async fn peek(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(bucket): Path<Bucket>,
) -> Result<Json<BucketView>> {
    only_operators(&context)?;
    let standing = container.get(RATE_LIMITS).await?.peek(&bucket.rule, &bucket.subject).await?;
    Ok(Json(BucketView {
        remaining: standing.remaining(),
        burst: standing.rate().burst(),
        reset_after: standing.reset_after(),
    }))
}

async fn reset(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(bucket): Path<Bucket>,
) -> Result<StatusCode> {
    only_operators(&context)?;
    container.get(RATE_LIMITS).await?.reset(&bucket.rule, &bucket.subject).await?;
    Ok(StatusCode::NO_CONTENT)
}
