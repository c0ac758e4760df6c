//! `/v1/events`: CloudEvents in and out, and how their subscriptions stand.

use http::{HeaderMap, StatusCode};
use runtime_events::cloudevent::http::{Limits, read};
use runtime_events::log::{Parked, Stored};
use runtime_events::{EVENT_LOG, Message, Receipt};
use runtime_http::axum::body::Bytes;
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, ErrorKind, SystemClock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::queues::operators_only;
use super::schema::{Object, page};
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
        Route::get("/v1/events/{topic}", list)
            .summary("Lists events of a topic that are still kept, oldest first.")
            .tag(TAG)
            .scope("events:read")
            .path::<ByTopic>()
            .query::<PageQuery>()
            .answers::<EventPage>(200, "A page of events.")
            .problems(&[404]),
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
            .query::<PageQuery>()
            .answers::<ParkedPage>(200, "A page of events.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/subscriptions/{name}/redrive", redrive)
            .summary("Hands parked events out again: one by its position, or all. Operators only.")
            .tag(TAG)
            .scope("events:write")
            .path::<ByName>()
            .takes::<Which>()
            .answers::<Redriven>(202, "So many are handed out again.")
            .problems(&[403, 404]),
    );
    app.route(
        Route::post("/v1/subscriptions/{name}/rewind", rewind)
            .summary("Lets a subscription read again what is kept after a position. Operators only.")
            .tag(TAG)
            .scope("events:write")
            .path::<ByName>()
            .takes::<Rewind>()
            .answers_empty(202, "It reads again.")
            .problems(&[403, 404]),
    );
    app.route(
        Route::delete("/v1/subscriptions/{name}/parked/{position}", discard)
            .summary("Forgets a parked event of a subscription. Operators only.")
            .tag(TAG)
            .scope("events:write")
            .path::<ByPosition>()
            .answers_empty(204, "It is forgotten.")
            .problems(&[403, 404]),
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
struct PageQuery {
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
    Query(query): Query<PageQuery>,
) -> Result<Json<ParkedPage>> {
    let (limit, tenant) = (page(query.limit, 50)?, whose(context));
    let log = container.get(EVENT_LOG).await?;
    let found = log.parked(&name, tenant.as_deref(), query.after.unwrap_or(0), limit).await?;
    Ok(Json(ParkedPage { parked: found.iter().map(parked_view).collect() }))
}

/// An event a subscription has set aside.
pub(crate) fn parked_view(parked: &Parked) -> Value {
    json!({
        "position": parked.stored.position, "topic": parked.stored.message.topic,
        "id": parked.stored.message.event.id(), "type": parked.stored.message.event.kind(),
        "published_at": parked.stored.published_at, "attempts": parked.attempts, "failure": parked.failure,
    })
}

/// The operator reaches every tenant's events, others their own.
fn whose(context: Context) -> Option<String> {
    super::jobs::reach(context).tenant.as_ref().map(|tenant| tenant.namespace())
}

/// A page of events.
#[derive(Debug, Serialize, JsonSchema)]
struct EventPage {
    /// The caller's own, by position; there may be none on a page that is not the last.
    events: Vec<EventView>,
    /// What to ask for as `after` to get the next page.
    next: Option<u64>,
}

/// An event in a topic.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EventView {
    /// Its place in the topic.
    pub(crate) position: u64,
    /// When it was published.
    pub(crate) published_at: String,
    /// The CloudEvent.
    pub(crate) event: Value,
}

pub(crate) fn event_view(stored: &Stored) -> EventView {
    EventView {
        position: stored.position,
        published_at: stored.published_at.to_string(),
        event: serde_json::to_value(&stored.message.event).unwrap_or_default(),
    }
}

async fn list(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByTopic { topic }): Path<ByTopic>,
    Query(query): Query<PageQuery>,
) -> Result<Json<EventPage>> {
    let (limit, tenant) = (page(query.limit, 50)?, whose(context));
    let found = container.get(EVENT_LOG).await?.read(&topic, query.after.unwrap_or(0), limit).await?;
    let full = found.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = found.last().filter(|_| full).map(|stored| stored.position);
    let own = |stored: &&Stored| tenant.as_ref().is_none_or(|tenant| stored.message.tenant() == *tenant);
    Ok(Json(EventPage { events: found.iter().filter(own).map(event_view).collect(), next }))
}

/// From where on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rewind {
    /// After this position; 0 for everything.
    after: u64,
}

async fn rewind(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Json(Rewind { after }): Json<Rewind>,
) -> Result<StatusCode> {
    operators_only(&context)?;
    container.get(EVENT_LOG).await?.rewind(&name, after).await?;
    record::subscription(&container, &context, "events.rewound", &name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Which event of which subscription.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByPosition {
    /// The subscription.
    #[schemars(length(min = 1, max = 128))]
    name: String,
    /// The event's place in the topic.
    position: u64,
}

async fn discard(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByPosition { name, position }): Path<ByPosition>,
) -> Result<StatusCode> {
    operators_only(&context)?;
    if !container.get(EVENT_LOG).await?.discard(&name, position).await? {
        let message = format!("`{name}` has parked no event at {position}");
        return Err(Error::new(ErrorKind::NotFound, "events.not_found", message).into());
    }
    record::subscription(&container, &context, "events.discarded", &name).await?;
    Ok(StatusCode::NO_CONTENT)
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
