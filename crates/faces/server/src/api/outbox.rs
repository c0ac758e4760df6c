//! `/v1/outbox`: how channels stand, and what is done about messages that were set aside.

use http::StatusCode;
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind};
use runtime_outbox::store::{ChannelStats, Failure, Parked};
use runtime_outbox::{Channel, OUTBOX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::queues::operators_only;
use super::schema::page;
use crate::record;

const TAG: &str = "outbox";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/outbox", stats)
            .summary("Shows what waits in each channel of the outbox, and for how long. Operators only.")
            .tag(TAG)
            .scope("outbox:read")
            .answers::<Channels>(200, "The channels that have unsent messages.")
            .problems(&[403]),
    );
    app.route(
        Route::get("/v1/outbox/{channel}/parked", parked)
            .summary("Lists messages that were set aside.")
            .tag(TAG)
            .scope("outbox:read")
            .path::<ByChannel>()
            .query::<ParkedQuery>()
            .answers::<ParkedPage>(200, "A page of messages."),
    );
    app.route(
        Route::post("/v1/outbox/{channel}/redrive", redrive)
            .summary("Sends parked messages after all: one by its number, or all.")
            .tag(TAG)
            .scope("outbox:write")
            .path::<ByChannel>()
            .takes::<Which>()
            .answers::<Redriven>(202, "So many are sent again."),
    );
    app.route(
        Route::delete("/v1/outbox/{channel}/parked/{seq}", discard)
            .summary("Deletes a parked message, and lets its key go on.")
            .tag(TAG)
            .scope("outbox:write")
            .path::<ByNumber>()
            .answers_empty(204, "It is gone.")
            .problems(&[404]),
    );
}

/// Which channel.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByChannel {
    /// Its name.
    #[schemars(length(min = 1, max = 64))]
    channel: String,
}

/// Which message.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByNumber {
    /// Its channel.
    #[schemars(length(min = 1, max = 64))]
    channel: String,
    /// Its number in the outbox.
    seq: u64,
}

/// The channels.
#[derive(Debug, Serialize, JsonSchema)]
struct Channels {
    /// By name.
    channels: Vec<ChannelView>,
}

/// How a channel stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChannelView {
    /// Its name.
    pub(crate) channel: String,
    /// Messages that can be sent now.
    pub(crate) ready: u64,
    /// Messages that wait for another attempt.
    pub(crate) retrying: u64,
    /// Messages that wait behind one of their key.
    pub(crate) behind: u64,
    /// Messages set aside.
    pub(crate) parked: u64,
    /// The age of the oldest message neither sent nor parked, in seconds.
    pub(crate) oldest_unsent_seconds: Option<f64>,
}

impl From<ChannelStats> for ChannelView {
    fn from(stats: ChannelStats) -> Self {
        Self {
            channel: stats.channel,
            ready: stats.ready,
            retrying: stats.retrying,
            behind: stats.behind,
            parked: stats.parked,
            oldest_unsent_seconds: stats.oldest_unsent.map(|age| age.as_secs_f64()),
        }
    }
}

async fn stats(State(container): State<Container>, Ctx(context): Ctx) -> Result<Json<Channels>> {
    operators_only(&context)?;
    let stats = container.get(OUTBOX).await?.stats().await?;
    Ok(Json(Channels { channels: stats.into_iter().map(ChannelView::from).collect() }))
}

/// Which page.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ParkedQuery {
    /// After this number.
    after: Option<u64>,
    /// At most so many; 50 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Messages set aside.
#[derive(Debug, Serialize, JsonSchema)]
struct ParkedPage {
    /// The oldest first.
    parked: Vec<ParkedMessage>,
}

/// A message that was set aside.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ParkedMessage {
    /// Its number in the outbox.
    pub(crate) seq: u64,
    /// Where it was to go.
    pub(crate) topic: String,
    /// The event's id, unless the message does not read back.
    pub(crate) id: Option<String>,
    /// The event's type.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// When it was added.
    pub(crate) created_at: String,
    /// How many attempts counted against it.
    pub(crate) attempts: u32,
    /// Whether its key waits for it.
    pub(crate) holding: bool,
    /// Why: the error's stable code.
    pub(crate) code: Option<String>,
    /// Why, in words.
    pub(crate) reason: Option<String>,
}

impl From<Parked> for ParkedMessage {
    fn from(parked: Parked) -> Self {
        let event = parked.message.map(|message| message.event);
        let (code, reason) = match parked.failure {
            Some(Failure { code, message, .. }) => (Some(code), Some(message)),
            None => (None, None),
        };
        Self {
            seq: parked.seq,
            topic: parked.topic,
            id: event.as_ref().map(|event| event.id().to_owned()),
            kind: event.as_ref().map(|event| event.kind().to_owned()),
            created_at: parked.created_at.to_string(),
            attempts: parked.attempts,
            holding: parked.holding,
            code,
            reason,
        }
    }
}

fn channel(name: &str) -> Result<Channel, Error> {
    Channel::new(name).map_err(Error::from)
}

/// The operator reaches every tenant's messages, others their own.
fn whose(context: runtime_kernel::Context) -> Option<String> {
    super::jobs::reach(context).tenant.as_ref().map(|tenant| tenant.namespace())
}

async fn parked(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByChannel { channel: name }): Path<ByChannel>,
    Query(query): Query<ParkedQuery>,
) -> Result<Json<ParkedPage>> {
    let (limit, tenant) = (page(query.limit, 50)?, whose(context));
    let outbox = container.get(OUTBOX).await?;
    let found = outbox.parked(&channel(&name)?, tenant.as_deref(), query.after.unwrap_or(0), limit).await?;
    Ok(Json(ParkedPage { parked: found.into_iter().map(ParkedMessage::from).collect() }))
}

/// One message, or all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Which {
    /// Only the one of this number.
    seq: Option<u64>,
}

/// What is sent again.
#[derive(Debug, Serialize, JsonSchema)]
struct Redriven {
    /// How many messages.
    redriven: u64,
}

async fn redrive(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByChannel { channel: name }): Path<ByChannel>,
    Json(Which { seq }): Json<Which>,
) -> Result<Response> {
    let tenant = whose(context.clone());
    let outbox = container.get(OUTBOX).await?;
    let redriven = outbox.redrive(&channel(&name)?, tenant.as_deref(), seq).await?;
    record::outbox(&container, &context, "outbox.redriven", &name).await?;
    Ok(Json(Redriven { redriven }).status(StatusCode::ACCEPTED))
}

async fn discard(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByNumber { channel: name, seq }): Path<ByNumber>,
) -> Result<StatusCode> {
    let tenant = whose(context.clone());
    let there = container.get(OUTBOX).await?.discard(&channel(&name)?, tenant.as_deref(), seq).await?;
    if !there {
        let message = format!("no message {seq} is parked in `{name}`");
        return Err(Error::new(ErrorKind::NotFound, "outbox.not_found", message).into());
    }
    record::outbox(&container, &context, "outbox.discarded", &format!("{name}/{seq}")).await?;
    Ok(StatusCode::NO_CONTENT)
}
