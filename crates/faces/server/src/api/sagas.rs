//! `/v1/sagas`: where sagas stand, signals to them, and orders about those that are parked.

use http::StatusCode;
use runtime_http::axum::extract::State;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind};
use runtime_saga::store::Filter;
use runtime_saga::{ReasonRequest, SAGAS, SagaId, SagaView, SignalRequest, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jobs::reach;
use super::schema::{Id, Object, page};
use crate::record;

const TAG: &str = "sagas";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/sagas", list)
            .summary("Lists sagas, newest first; `status=parked` those that wait for somebody.")
            .tag(TAG)
            .scope("sagas:read")
            .query::<Which>()
            .answers::<Sagas>(200, "A page of sagas; the operator's are those of all tenants."),
    );
    app.route(
        Route::get("/v1/sagas/{id}", show)
            .summary("Shows a saga, its journal and its signals.")
            .tag(TAG)
            .scope("sagas:read")
            .path::<ById>()
            .query::<After>()
            .answers::<Object>(200, "The saga.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/sagas/{id}/signals", signal)
            .summary("Sends a signal; durable once accepted, and consumed once.")
            .tag(TAG)
            .scope("sagas:write")
            .path::<ById>()
            .takes::<Object>()
            .answers_empty(202, "It is kept.")
            .problems(&[404, 409]),
    );
    app.route(
        Route::post("/v1/sagas/{id}/{order}", order)
            .summary(
                "`cancel` a saga, `retry` a parked one, or `resolve` it as seen to by hand; with a reason.",
            )
            .tag(TAG)
            .scope("sagas:write")
            .path::<Ordered>()
            .takes::<Object>()
            .answers_empty(202, "As ordered.")
            .problems(&[404, 409]),
    );
}

/// Which saga.
#[derive(Debug, Deserialize, JsonSchema)]
struct ById {
    /// Its id.
    #[schemars(with = "Id")]
    id: SagaId,
}

/// What to do with which saga.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ordered {
    /// Its id.
    #[schemars(with = "Id")]
    id: SagaId,
    /// cancel, retry or resolve.
    order: String,
}

/// From where on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct After {
    /// Journal entries after this number.
    after: Option<u64>,
}

/// Which sagas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Only of this type.
    name: Option<String>,
    /// Only in this state: running, compensating, parked, completed, compensated or resolved.
    #[schemars(with = "Option<String>")]
    status: Option<Status>,
    /// Only with this key.
    key: Option<String>,
    /// Only older than this one: the last of the page before.
    #[schemars(with = "Option<Id>")]
    before: Option<SagaId>,
    /// At most so many; 100 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// A page of sagas.
#[derive(Debug, Serialize, JsonSchema)]
struct Sagas {
    /// Newest first.
    sagas: Vec<Value>,
}

fn value(item: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(item).map_err(Error::internal)
}

async fn list(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(Which { name, status, key, before, limit }): Query<Which>,
) -> Result<Json<Sagas>> {
    let limit = Some(page(limit, 100)?);
    let filter = Filter { tenant: None, name, status, key, before, limit };
    let sagas = container.get(SAGAS).await?;
    if reach(context.clone()).tenant.is_none() {
        let found = everywhere(&sagas, &filter).await?;
        return Ok(Json(Sagas { sagas: found.iter().map(value).collect::<Result<_, _>>()? }));
    }
    let found = sagas.list(&context, filter).await?;
    Ok(Json(Sagas { sagas: found.iter().map(value).collect::<Result<_, _>>()? }))
}

/// A saga of some tenant.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    /// The namespace of its tenant: `realm/tenant`, `realm/` for the realm's own, empty for the service's.
    pub(crate) tenant: String,
    #[serde(flatten)]
    pub(crate) saga: SagaView,
}

/// Sagas of all tenants, for the operator.
pub(crate) async fn everywhere(sagas: &runtime_saga::Sagas, filter: &Filter) -> Result<Vec<Listed>, Error> {
    let found = sagas.store().list(filter).await?;
    Ok(found
        .iter()
        .map(|instance| Listed { tenant: instance.tenant.clone(), saga: instance.into() })
        .collect())
}

async fn show(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
    Query(After { after }): Query<After>,
) -> Result<Json<Value>> {
    let seen = container.get(SAGAS).await?.show(&context, id, after.unwrap_or(0)).await?;
    Ok(Json(value(&seen)?))
}

async fn signal(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
    Json(signal): Json<SignalRequest>,
) -> Result<StatusCode> {
    container.get(SAGAS).await?.signal(&context, id, signal).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn order(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(Ordered { id, order }): Path<Ordered>,
    Json(ReasonRequest { reason, .. }): Json<ReasonRequest>,
) -> Result<StatusCode> {
    let sagas = container.get(SAGAS).await?;
    let action = match order.as_str() {
        "cancel" => sagas.cancel(&context, id, &reason).await.map(|()| "sagas.cancelled")?,
        "retry" => sagas.retry(&context, id, &reason).await.map(|()| "sagas.retried")?,
        "resolve" => sagas.resolve(&context, id, &reason).await.map(|()| "sagas.resolved")?,
        other => {
            let message = format!("`{other}` is none of cancel, retry, resolve");
            return Err(Error::new(ErrorKind::NotFound, "http.not_found", message).into());
        }
    };
    record::saga(&container, &context, action, &id.to_string()).await?;
    Ok(StatusCode::ACCEPTED)
}
