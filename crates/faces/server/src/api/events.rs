//! `/v1/events`: CloudEvents in, and how their subscriptions stand.

use http::{HeaderMap, StatusCode};
use runtime_events::cloudevent::http::{Limits, read};
use runtime_events::{EVENT_LOG, Message, Receipt};
use runtime_http::axum::body::Bytes;
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind, SystemClock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::queues::operators_only;
use super::schema::Object;
use crate::record;

const TAG: &str = "events";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::post("/v1/events/{topic}", publish)
            .summary("Publishes CloudEvents: binary, structured or batched. Once accepted, they are durable.")
            .tag(TAG)
            .scope("events:write")
            .path::<ByTopic>()
            .takes::<Object>()
            .answers::<Published>(202, "What became of each."),
    );
    app.route(
        Route::get("/v1/subscriptions", subscriptions)
            .summary("Shows how far each subscription has read, and what it has set aside.")
            .tag(TAG)
            .scope("events:read")
            .answers::<Subscriptions>(200, "The subscriptions."),
    );
    app.route(
        Route::get("/v1/subscriptions/{name}/parked", parked)
            .summary("Lists events a subscription has set aside.")
            .tag(TAG)
            .scope("events:read")
            .path::<ByName>()
            .query::<ParkedQuery>()
            .answers::<ParkedPage>(200, "A page of events."),
    );
    app.route(
        Route::post("/v1/subscriptions/{name}/redrive", redrive)
            .summary("Hands parked events out again: one by its position, or all. Operators only.")
            .tag(TAG)
            .scope("events:write")
            .path::<ByName>()
            .takes::<Which>()
            .answers::<Redriven>(202, "So many are handed out again.")
            .problems(&[403]),
    );
}

/// Which topic.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByTopic {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    topic: String,
}

/// Which subscription.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByName {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    name: String,
}

/// What became of events.
#[derive(Debug, Serialize, JsonSchema)]
struct Published {
    /// `new` or `duplicate`, in their order.
    events: Vec<String>,
}

async fn publish(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByTopic { topic }): Path<ByTopic>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let received = read(&headers, &body, &Limits::default())?.into_events();
    let message = |event| Message::new(&SystemClock, &context, topic.clone(), event);
    let messages = received.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let receipts = container.get(EVENT_LOG).await?.publish(&messages).await?;
    let name = |receipt: &Receipt| match receipt {
        Receipt::New => "new".to_owned(),
        Receipt::Duplicate => "duplicate".to_owned(),
    };
    Ok(Json(Published { events: receipts.iter().map(name).collect() }).status(StatusCode::ACCEPTED))
}

/// The subscriptions.
#[derive(Debug, Serialize, JsonSchema)]
struct Subscriptions {
    /// By name.
    subscriptions: Vec<Value>,
}

async fn subscriptions(State(container): State<Container>) -> Result<Json<Subscriptions>> {
    let lag = container.get(EVENT_LOG).await?.lag().await?;
    let subscriptions = lag.iter().map(|lag| serde_json::to_value(lag).unwrap_or_default()).collect();
    Ok(Json(Subscriptions { subscriptions }))
}

/// Which page.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ParkedQuery {
    /// After this position.
    after: Option<u64>,
    /// At most so many; 50 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Events set aside.
#[derive(Debug, Serialize, JsonSchema)]
struct ParkedPage {
    /// By position.
    parked: Vec<Value>,
}

async fn parked(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Query(query): Query<ParkedQuery>,
) -> Result<Json<ParkedPage>> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=1000).contains(&limit) {
        let wrong = Error::new(ErrorKind::Invalid, "http.invalid_query", "`limit` must be 1 to 1000");
        return Err(wrong.with_detail("limit", "must be 1 to 1000").into());
    }
    let context = super::jobs::reach(context);
    let tenant = context.tenant.as_ref().map(|tenant| tenant.namespace());
    let log = container.get(EVENT_LOG).await?;
    let found = log.parked(&name, tenant.as_deref(), query.after.unwrap_or(0), limit).await?;
    let view = |parked: &runtime_events::log::Parked| {
        json!({
            "position": parked.stored.position, "topic": parked.stored.message.topic,
            "id": parked.stored.message.event.id(), "type": parked.stored.message.event.kind(),
            "published_at": parked.stored.published_at, "attempts": parked.attempts, "failure": parked.failure,
        })
    };
    Ok(Json(ParkedPage { parked: found.iter().map(view).collect() }))
}

/// One event, or all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Which {
    /// Only the one at this position.
    position: Option<u64>,
}

/// What was handed out again.
#[derive(Debug, Serialize, JsonSchema)]
struct Redriven {
    /// How many events.
    redriven: u64,
}

async fn redrive(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Json(Which { position }): Json<Which>,
) -> Result<Response> {
    operators_only(&context)?;
    let redriven = container.get(EVENT_LOG).await?.redrive(&name, position).await?;
    record::subscription(&container, &context, "events.redriven", &name).await?;
    Ok(Json(Redriven { redriven }).status(StatusCode::ACCEPTED))
}
