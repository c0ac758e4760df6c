//! `/v1/workflows`: definitions, instances, inboxes.

use http::StatusCode;
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind};
use runtime_workflow::store::{InstanceFilter, VersionFilter};
use runtime_workflow::{ActRequest, Definition, InstanceId, OrderRequest, StartRequest, Status, WORKFLOWS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::Id;

const TAG: &str = "workflows";

pub(super) fn routes(app: &mut App) {
    definitions(app);
    instances(app);
    app.route(
        Route::get("/v1/workflows/inbox", inbox)
            .summary("What the caller is asked to decide, the most urgent first.")
            .tag(TAG)
            .scope("workflow:act")
            .query::<Few>()
            .answers::<Tasks>(200, "The tasks."),
    );
    app.route(
        Route::get("/v1/workflows/tasks", tasks)
            .summary("What anybody in the tenant is asked to decide.")
            .tag(TAG)
            .scope("workflow:read")
            .query::<Few>()
            .answers::<Tasks>(200, "The tasks."),
    );
}

fn definitions(app: &mut App) {
    app.route(
        Route::get("/v1/workflows/definitions", versions)
            .summary("Lists versions of definitions.")
            .tag(TAG)
            .scope("workflow:read")
            .query::<ByCode>()
            .answers::<Versions>(200, "By code, newest first."),
    );
    app.route(
        Route::post("/v1/workflows/definitions", register)
            .summary("Checks a definition and keeps it as a draft.")
            .tag(TAG)
            .scope("workflow:define")
            .takes::<Definition>()
            .answers::<VersionView>(201, "The new version."),
    );
    app.route(
        Route::post("/v1/workflows/definitions/{code}/{version}/{order}", set_state)
            .summary("`activate` a version, or `retire` it.")
            .tag(TAG)
            .scope("workflow:define")
            .path::<Ordered>()
            .answers_empty(204, "As ordered.")
            .problems(&[404, 409]),
    );
}

fn instances(app: &mut App) {
    app.route(
        Route::post("/v1/workflows", start)
            .summary("Starts an instance about an entity.")
            .tag(TAG)
            .scope("workflow:act")
            .takes::<StartRequest>()
            .answers::<InstanceView>(201, "The instance.")
            .problems(&[404, 409]),
    );
    app.route(
        Route::get("/v1/workflows", list)
            .summary("Lists instances, newest first: the caller's, or with `workflow:read` everybody's.")
            .tag(TAG)
            .scope("workflow:act")
            .query::<Which>()
            .answers::<Instances>(200, "A page of instances."),
    );
    app.route(
        Route::get("/v1/workflows/{id}", show)
            .summary("Shows an instance.")
            .tag(TAG)
            .scope("workflow:act")
            .path::<ById>()
            .answers::<InstanceView>(200, "The instance.")
            .problems(&[404]),
    );
    app.route(
        Route::get("/v1/workflows/{id}/history", history)
            .summary("What has happened to an instance, in order.")
            .tag(TAG)
            .scope("workflow:act")
            .path::<ById>()
            .query::<After>()
            .answers::<History>(200, "The events.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/workflows/{id}/actions", act)
            .summary("Approves, rejects, delegates, withdraws, … as a participant.")
            .tag(TAG)
            .scope("workflow:act")
            .path::<ById>()
            .takes::<ActRequest>()
            .answers::<InstanceView>(200, "The instance thereafter.")
            .problems(&[403, 404, 409]),
    );
    app.route(
        Route::post("/v1/workflows/{id}/orders", order)
            .summary("Reassigns, skips, forces, restarts, … as an administrator, with a reason.")
            .tag(TAG)
            .scope("workflow:admin")
            .path::<ById>()
            .takes::<OrderRequest>()
            .answers::<InstanceView>(200, "The instance thereafter.")
            .problems(&[403, 404, 409]),
    );
}

/// Which instances.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of this status: `pending`, `in_progress`, `on_hold`, `approved` and so on, as an instance shows it.
    #[schemars(with = "Option<String>")]
    status: Option<Status>,
    /// With a step that cannot go on by itself, or without.
    parked: Option<bool>,
    /// About entities of this type.
    entity_type: Option<String>,
    /// About this entity.
    entity_id: Option<String>,
    /// Asked for by this person.
    requester: Option<String>,
    /// Older than this one: the last of the page before.
    #[schemars(with = "Option<Id>")]
    before: Option<InstanceId>,
    /// At most so many, newest first; 100 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Which instance.
#[derive(Debug, Deserialize, JsonSchema)]
struct ById {
    /// Its id.
    #[schemars(with = "Id")]
    id: InstanceId,
}

/// Which version, and what to do with it.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ordered {
    /// The definition's code.
    code: String,
    /// The version's number.
    version: u32,
    /// activate or retire.
    order: String,
}

/// Of which definition.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ByCode {
    /// Only of this code.
    code: Option<String>,
}

/// How many.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Few {
    /// At most so many; 100 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

impl Few {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).min(1000)
    }
}

/// From where on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct After {
    /// After this event's number.
    after: Option<u64>,
    /// At most so many; 100 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident { $(#[$field_doc:meta])* $field:ident })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, JsonSchema)]
        struct $name {
            $(#[$field_doc])*
            $field: Vec<Value>,
        }

        impl $name {
            fn of<T: Serialize>(items: &[T]) -> Result<Json<Self>> {
                let read = items.iter().map(|item| serde_json::to_value(item).map_err(Error::internal));
                Ok(Json(Self { $field: read.collect::<Result<_, _>>()? }))
            }
        }
    )+};
}

views! {
    /// Tasks.
    Tasks {
        /// Who is asked to decide what, by when, and how urgent it is.
        tasks
    }
    /// Versions of definitions.
    Versions {
        /// Number, state, definition, who registered it and when.
        versions
    }
    /// Instances.
    Instances {
        /// Each as [`InstanceView`] has it.
        instances
    }
    /// What has happened.
    History {
        /// What, when, by whom and why.
        events
    }
}

/// An instance: status, steps with their seats, entity, timers, revision.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
struct InstanceView(Value);

/// A version of a definition.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
struct VersionView(Value);

fn value(item: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(item).map_err(Error::internal)
}

async fn versions(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(ByCode { code }): Query<ByCode>,
) -> Result<Json<Versions>> {
    let filter = VersionFilter { code, ..VersionFilter::default() };
    Versions::of(&container.get(WORKFLOWS).await?.versions(&context, &filter).await?)
}

async fn register(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(definition): Json<Definition>,
) -> Result<Response> {
    let version = container.get(WORKFLOWS).await?.register(&context, definition).await?;
    Ok(Json(VersionView(value(&version)?)).status(StatusCode::CREATED))
}

async fn set_state(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(Ordered { code, version, order }): Path<Ordered>,
) -> Result<StatusCode> {
    let workflows = container.get(WORKFLOWS).await?;
    match order.as_str() {
        "activate" => workflows.activate(&context, &code, version).await?,
        "retire" => workflows.retire(&context, &code, version).await?,
        other => {
            let message = format!("`{other}` is neither activate nor retire");
            return Err(Error::new(ErrorKind::NotFound, "http.not_found", message).into());
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn start(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(request): Json<StartRequest>,
) -> Result<Response> {
    let instance = container.get(WORKFLOWS).await?.start(&context, request).await?;
    Ok(Json(InstanceView(value(&instance)?)).status(StatusCode::CREATED))
}

async fn list(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(which): Query<Which>,
) -> Result<Json<Instances>> {
    let Which { status, parked, entity_type, entity_id, requester, before, limit } = which;
    let filter = InstanceFilter { status, parked, entity_type, entity_id, requester, before, limit };
    Instances::of(&container.get(WORKFLOWS).await?.list(&context, filter).await?)
}

async fn show(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Json<InstanceView>> {
    Ok(Json(InstanceView(value(&container.get(WORKFLOWS).await?.get(&context, id).await?)?)))
}

async fn history(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
    Query(After { after, limit }): Query<After>,
) -> Result<Json<History>> {
    let limit = Few { limit }.limit();
    let events = container.get(WORKFLOWS).await?.history(&context, id, after.unwrap_or(0), limit).await?;
    History::of(&events)
}

async fn act(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
    Json(request): Json<ActRequest>,
) -> Result<Json<InstanceView>> {
    let workflows = container.get(WORKFLOWS).await?;
    let instance = workflows.act(&context, id, request.action, &request.guard).await?;
    Ok(Json(InstanceView(value(&instance)?)))
}

async fn order(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
    Json(request): Json<OrderRequest>,
) -> Result<Json<InstanceView>> {
    let workflows = container.get(WORKFLOWS).await?;
    let instance = workflows.order(&context, id, request.order, request.reason, &request.guard).await?;
    Ok(Json(InstanceView(value(&instance)?)))
}

async fn inbox(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(few): Query<Few>,
) -> Result<Json<Tasks>> {
    Tasks::of(&container.get(WORKFLOWS).await?.inbox(&context, few.limit()).await?)
}

async fn tasks(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(few): Query<Few>,
) -> Result<Json<Tasks>> {
    Tasks::of(&container.get(WORKFLOWS).await?.work_queue(&context, few.limit()).await?)
}
