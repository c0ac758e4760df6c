//! `/v1/rollouts`: where rollouts stand, and orders to them; and the requests they pass on.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use runtime_client::{Client, ClientConfig, Guard};
use runtime_discovery::SERVICES;
use runtime_http::axum::Router;
use runtime_http::axum::extract::State;
use runtime_http::{Ctx, HttpApp, Json, Path, Phase, Result, Route};
use runtime_kernel::app::{App, SetupError};
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, ErrorKind};
use runtime_rollout::{
    Order, ROLLOUTS, Rollout, RolloutConfig, RolloutError, RolloutService, Rollouts, Side, Upstream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operators_only;
use crate::rollout_record;

const TAG: &str = "rollouts";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/rollouts", list)
            .summary("Lists the rollouts, and what the analysis has seen.")
            .tag(TAG)
            .scope("rollouts:read")
            .answers::<RolloutList>(200, "The rollouts.")
            .problems(&[403]),
    );
    app.route(
        Route::post("/v1/rollouts/{name}", order)
            .summary("Starts, pauses, advances, promotes, prepares, switches or rolls back.")
            .tag(TAG)
            .scope("rollouts:write")
            .path::<ByName>()
            .takes::<Ordered>()
            .answers::<RolloutView>(200, "The rollout, as ordered.")
            .problems(&[403, 404, 409]),
    );
}

/// Which rollout.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByName {
    /// Its name.
    #[schemars(length(min = 1, max = 64))]
    name: String,
}

/// The rollouts.
#[derive(Debug, Serialize, JsonSchema)]
struct RolloutList {
    /// By name.
    rollouts: Vec<RolloutView>,
}

/// A rollout.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RolloutView {
    /// Its name.
    pub(crate) name: String,
    /// canary or `blue_green`.
    pub(crate) kind: String,
    /// idle, running, paused, promoted, `rolled_back`, prepared or draining.
    pub(crate) phase: String,
    /// The canary's share in hundredths of a per cent.
    pub(crate) weight: u32,
    /// Which step it is at, from 0.
    pub(crate) step: usize,
    /// When it came there.
    pub(crate) since: String,
    /// What was last done to it, and why.
    pub(crate) reason: String,
    /// How many subjects are pinned.
    pub(crate) pins: usize,
    /// What has been seen since then, by side.
    pub(crate) seen: [SeenView; 2],
}

/// What a side has answered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SeenView {
    /// primary or canary.
    pub(crate) side: &'static str,
    /// How many requests.
    pub(crate) requests: u64,
    /// How many failed.
    pub(crate) failed: u64,
    /// How many were slow.
    pub(crate) slow: u64,
}

impl From<&Rollout> for RolloutView {
    fn from(rollout: &Rollout) -> Self {
        let spelled = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let text = |value: serde_json::Result<serde_json::Value>| spelled(value.unwrap_or_default());
        let seen = [Side::Primary, Side::Canary].map(|side| {
            let counts = rollout.analysis.seen(side);
            SeenView {
                side: side.as_str(),
                requests: counts.requests,
                failed: counts.failed,
                slow: counts.slow,
            }
        });
        Self {
            name: rollout.name.clone(),
            kind: text(serde_json::to_value(rollout.kind)),
            phase: text(serde_json::to_value(rollout.phase)),
            weight: rollout.weight,
            step: rollout.step,
            since: rollout.since.to_string(),
            reason: rollout.reason.clone(),
            pins: rollout.pins.len(),
            seen,
        }
    }
}

/// An order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ordered {
    /// What to do.
    order: Verb,
    /// The share in hundredths of a per cent, for `weight`.
    weight: Option<u32>,
    /// Whom to pin or unpin.
    #[schemars(length(min = 1, max = 256))]
    subject: Option<String>,
    /// Where to.
    side: Option<SideName>,
    /// Why; kept with the rollout and on the audit record.
    #[serde(default)]
    #[schemars(length(max = 512))]
    reason: String,
}

/// What can be done to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    /// Canary: begins with the first step.
    Start,
    /// Canary: nothing moves by itself any more.
    Pause,
    /// Canary: goes on.
    Resume,
    /// Canary: the next step now.
    Advance,
    /// Canary: everything to the canary.
    Promote,
    /// Back to what was before.
    Rollback,
    /// Canary: this share, and paused.
    Weight,
    /// A subject goes to a side whatever the weight.
    Pin,
    /// It goes by the weight again.
    Unpin,
    /// Blue-green: the side that is not active is made ready.
    Prepare,
    /// Blue-green: it is good.
    Verify,
    /// Blue-green: everything to it.
    Switch,
}

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SideName {
    /// What was there before; blue.
    Primary,
    /// What is new; green.
    Canary,
}

/// The order that is meant.
pub(crate) fn meant(
    verb: Verb,
    weight: Option<u32>,
    subject: Option<String>,
    side: Option<SideName>,
) -> std::result::Result<Order, Error> {
    let missing = |what: &str| {
        Error::new(ErrorKind::Invalid, "rollout.incomplete_order", format!("the order needs a `{what}`"))
    };
    Ok(match verb {
        Verb::Start => Order::Start,
        Verb::Pause => Order::Pause,
        Verb::Resume => Order::Resume,
        Verb::Advance => Order::Advance,
        Verb::Promote => Order::Promote,
        Verb::Rollback => Order::Rollback,
        Verb::Weight => Order::Weight(weight.ok_or_else(|| missing("weight"))?),
        Verb::Pin => {
            let side = match side.ok_or_else(|| missing("side"))? {
                SideName::Primary => Side::Primary,
                SideName::Canary => Side::Canary,
            };
            Order::Pin(subject.ok_or_else(|| missing("subject"))?, side)
        }
        Verb::Unpin => Order::Unpin(subject.ok_or_else(|| missing("subject"))?),
        Verb::Prepare => Order::Prepare,
        Verb::Verify => Order::Verify,
        Verb::Switch => Order::Switch,
    })
}

/// Where a path's requests go is the same for every tenant.
fn only_operators(context: &Context) -> std::result::Result<(), Error> {
    operators_only(context, "rollouts.operators_only", "rollouts are shared by all tenants")
}

async fn list(State(container): State<Container>, Ctx(context): Ctx) -> Result<Json<RolloutList>> {
    only_operators(&context)?;
    let rollouts = container.get(ROLLOUTS).await?.list().await?;
    Ok(Json(RolloutList { rollouts: rollouts.iter().map(RolloutView::from).collect() }))
}

async fn order(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Json(ordered): Json<Ordered>,
) -> Result<(StatusCode, Json<RolloutView>)> {
    only_operators(&context)?;
    let order = meant(ordered.order, ordered.weight, ordered.subject, ordered.side)?;
    let rollout = rollout_record::order(&container, &context, name, order, ordered.reason).await?;
    Ok((StatusCode::OK, Json(RolloutView::from(&rollout))))
}

/// Passes the requests of rollouts that have upstreams on to them.
pub(super) fn passed_on(app: &mut App) -> std::result::Result<(), SetupError> {
    let config: RolloutConfig = app.section()?;
    let routes: Vec<_> = config.routes.into_iter().filter(|(_, routes)| !routes.path.is_empty()).collect();
    if routes.is_empty() {
        return Ok(());
    }
    let mut client: ClientConfig = app.section()?;
    let timeout = client.timeout;
    // Long streams may be silent, as our own routes' may.
    client.read_timeout = Duration::MAX;
    let clock = app.shared_clock();
    app.on_start("upstreams", |container| async move { container.get(SERVICES).await.map(drop) });
    app.layer(Phase::Handle, "upstreams of rollouts", move |router, container| {
        let (Some(rollouts), Some(services)) = (container.peek(ROLLOUTS), container.peek(SERVICES)) else {
            return router;
        };
        // What an operator names may be called, wherever it is.
        let mut builder = Client::builder(client, Arc::clone(&clock)).guard(Guard::open());
        for (service, balancer) in services.iter() {
            builder = builder.targets(format!("{}.service", service.name()), Arc::new(balancer.clone()));
        }
        let Ok(client) = builder.build() else { return router };
        routes.iter().fold(router, |router, (name, routes)| {
            let upstream = |base: &str| {
                let upstream = Upstream::new(client.clone(), base, Arc::clone(&clock))?;
                Ok::<_, RolloutError>(upstream.timeout(timeout))
            };
            match (upstream(&routes.primary), upstream(&routes.canary)) {
                (Ok(primary), Ok(canary)) => nested(router, &rollouts, name, &routes.path, primary, canary),
                _ => router,
            }
        })
    });
    Ok(())
}

fn nested(
    router: Router<Container>,
    rollouts: &Rollouts,
    name: &str,
    path: &str,
    primary: Upstream,
    canary: Upstream,
) -> Router<Container> {
    let Ok(service) = RolloutService::new(rollouts, name, primary, canary) else { return router };
    let path = path.trim_end_matches('/');
    // What is below it matches no empty rest.
    let router = router.route_service(&format!("{path}/"), service.clone());
    let router = router.route_service(&format!("{path}/{{*rest}}"), service.clone());
    if path.is_empty() { router } else { router.route_service(path, service) }
}
