//! `/v1/schedules`: what fires when, its history, and what it will do next.

use runtime_cron::{JobOf, SCHEDULES, Schedule, Stored, TickRecord};
use runtime_http::axum::extract::State;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jobs::reach;
use super::schema::{Object, page};
use crate::{kinds, record};

const TAG: &str = "schedules";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/schedules", list)
            .summary("Lists schedules by name.")
            .tag(TAG)
            .scope("schedules:read")
            .query::<PageQuery>()
            .answers::<Schedules>(200, "A page of schedules."),
    );
    app.route(
        Route::get("/v1/schedules/{name}", show)
            .summary("Shows a schedule, its latest ticks and its next fire times.")
            .tag(TAG)
            .scope("schedules:read")
            .path::<ByName>()
            .answers::<ScheduleView>(200, "The schedule.")
            .problems(&[404]),
    );
    app.route(
        Route::get("/v1/schedules/{name}/next", next)
            .summary("Says when a schedule fires next, whether paused or not.")
            .tag(TAG)
            .scope("schedules:read")
            .path::<ByName>()
            .query::<CountQuery>()
            .answers::<NextView>(200, "The next fire times.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/schedules/{name}/next", next_of)
            .summary("Says when a schedule would fire under this name, without keeping it.")
            .tag(TAG)
            .scope("schedules:read")
            .path::<ByName>()
            .query::<CountQuery>()
            .takes::<Object>()
            .answers::<NextView>(200, "The next fire times."),
    );
    app.route(
        Route::put("/v1/schedules/{name}", put)
            .summary("Keeps a schedule: a cron expression or `@every 90s`, a time zone, an action and its policies.")
            .tag(TAG)
            .scope("schedules:write")
            .path::<ByName>()
            .takes::<Object>()
            .answers::<ScheduleView>(200, "The schedule, as it is kept.")
            .problems(&[409]),
    );
    app.route(
        Route::delete("/v1/schedules/{name}", remove)
            .summary("Forgets a schedule and its history.")
            .tag(TAG)
            .scope("schedules:write")
            .path::<ByName>()
            .answers::<Done>(200, "It is gone.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/schedules/{name}/{order}", order)
            .summary("`pause`, `resume`, or `trigger` now.")
            .tag(TAG)
            .scope("schedules:write")
            .path::<Ordered>()
            .answers::<Done>(200, "As ordered.")
            .problems(&[404]),
    );
}

/// Which schedule.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByName {
    /// Its name.
    #[schemars(length(min = 1, max = 200))]
    name: String,
}

/// What to do with which schedule.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ordered {
    /// Its name.
    #[schemars(length(min = 1, max = 200))]
    name: String,
    /// pause, resume or trigger.
    order: String,
}

/// Which page.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// After this name.
    after: Option<String>,
    /// At most so many; 100 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// A page of schedules.
#[derive(Debug, Serialize, JsonSchema)]
struct Schedules {
    /// By name.
    schedules: Vec<ScheduleView>,
}

/// A schedule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScheduleView {
    /// Its name.
    pub(crate) name: String,
    /// What is kept.
    pub(crate) schedule: Value,
    /// Grows with each change.
    pub(crate) revision: u64,
    /// Whether it fires nothing for now.
    pub(crate) paused: bool,
    /// code, config or api.
    pub(crate) origin: Value,
    /// The next fire times.
    pub(crate) next: Vec<String>,
    /// The latest ticks, latest first.
    pub(crate) history: Vec<Value>,
}

impl ScheduleView {
    pub(crate) fn of(stored: &Stored) -> Self {
        Self {
            name: stored.key.name.clone(),
            schedule: serde_json::to_value(&stored.schedule).unwrap_or_default(),
            revision: stored.revision,
            paused: stored.paused,
            origin: serde_json::to_value(stored.origin).unwrap_or_default(),
            next: stored.next.iter().map(ToString::to_string).collect(),
            history: Vec::new(),
        }
    }
}

fn tick(record: &TickRecord) -> Value {
    json!({
        "fire_time": record.fire_time, "state": record.state, "due": record.due, "attempt": record.attempt,
        "manual": record.manual, "fired_at": record.fired_at, "finished_at": record.finished_at, "note": record.note,
    })
}

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    /// To which schedule.
    name: String,
    /// What.
    done: String,
}

async fn list(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(query): Query<PageQuery>,
) -> Result<Json<Schedules>> {
    let (limit, context) = (page(query.limit, 100)?, reach(context));
    let found = container.get(SCHEDULES).await?.list(&context, query.after.as_deref(), limit).await?;
    Ok(Json(Schedules { schedules: found.iter().map(ScheduleView::of).collect() }))
}

async fn show(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
) -> Result<Json<ScheduleView>> {
    Ok(Json(view(&container, &reach(context), &name).await?))
}

/// A schedule with ten ticks before and ten fire times after now.
pub(crate) async fn view(
    container: &Container,
    context: &Context,
    name: &str,
) -> Result<ScheduleView, Error> {
    let schedules = container.get(SCHEDULES).await?;
    let stored = schedules.get(context, name).await?;
    let mut view = ScheduleView::of(&stored);
    view.next = schedules.preview(context, name, 10).await?.iter().map(ToString::to_string).collect();
    view.history = schedules.history(context, name, 10).await?.iter().map(tick).collect();
    Ok(view)
}

async fn put(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Json(body): Json<Value>,
) -> Result<Json<ScheduleView>> {
    let (schedule, own) = (read(&name, body)?, reach(context.clone()));
    let schedules = container.get(SCHEDULES).await?;
    // When it fires comes first: the rest is about what then happens.
    schedules.preview_of(&own, &schedule, 1)?;
    if schedule.action == "job" {
        let job = JobOf::deserialize(&schedule.payload).map_err(|error| {
            let message = "the payload of a schedule whose action is `job` names a job";
            Error::new(ErrorKind::Invalid, "http.invalid_json", message)
                .with_detail("/payload", error.to_string())
        })?;
        kinds::check(&context, &job.kind, &job.payload)?;
    }
    schedules.put(&own, schedule).await?;
    record::schedule(&container, &context, "schedules.kept", &name).await?;
    Ok(Json(view(&container, &own, &name).await?))
}

fn read(name: &str, mut body: Value) -> Result<Schedule, Error> {
    let invalid = |message: String| Error::new(ErrorKind::Invalid, "http.invalid_json", message);
    let fields = body.as_object_mut().ok_or_else(|| invalid("a schedule is an object".to_owned()))?;
    if fields.get("name").is_some_and(|told| *told != json!(name)) {
        return Err(invalid("`name` differs from the path's".to_owned()).with_detail("/name", "differs"));
    }
    fields.insert("name".to_owned(), json!(name));
    serde_json::from_value(body).map_err(|error| invalid(error.to_string()))
}

/// How many.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountQuery {
    /// At most so many; 10 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    count: Option<u32>,
}

impl CountQuery {
    fn count(&self) -> Result<usize, Error> {
        let count = self.count.unwrap_or(10);
        let wrong = || {
            let wrong = Error::new(ErrorKind::Invalid, "http.invalid_query", "`count` must be 1 to 1000");
            wrong.with_detail("count", "must be 1 to 1000")
        };
        usize::try_from(count).ok().filter(|count| (1..=1000).contains(count)).ok_or_else(wrong)
    }
}

/// When something fires.
#[derive(Debug, Serialize, JsonSchema)]
struct NextView {
    /// Under which name: what `H` stands for is hashed from it.
    name: String,
    /// The next fire times, without jitter.
    next: Vec<String>,
}

async fn next(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Query(query): Query<CountQuery>,
) -> Result<Json<NextView>> {
    let count = query.count()?;
    let times = container.get(SCHEDULES).await?.preview(&reach(context), &name, count).await?;
    Ok(Json(NextView { name, next: times.iter().map(ToString::to_string).collect() }))
}

async fn next_of(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
    Query(query): Query<CountQuery>,
    Json(body): Json<Value>,
) -> Result<Json<NextView>> {
    let (count, schedule) = (query.count()?, read(&name, body)?);
    let times = container.get(SCHEDULES).await?.preview_of(&reach(context), &schedule, count)?;
    Ok(Json(NextView { name, next: times.iter().map(ToString::to_string).collect() }))
}

async fn remove(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByName { name }): Path<ByName>,
) -> Result<Json<Done>> {
    container.get(SCHEDULES).await?.remove(&reach(context.clone()), &name).await?;
    record::schedule(&container, &context, "schedules.removed", &name).await?;
    Ok(Json(Done { name, done: "removed".to_owned() }))
}

async fn order(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(Ordered { name, order }): Path<Ordered>,
) -> Result<Json<Done>> {
    let (schedules, own) = (container.get(SCHEDULES).await?, reach(context.clone()));
    let action = match order.as_str() {
        "pause" => schedules.pause(&own, &name).await.map(|_| "schedules.paused")?,
        "resume" => schedules.resume(&own, &name).await.map(|_| "schedules.resumed")?,
        "trigger" => schedules.trigger(&own, &name).await.map(|_| "schedules.triggered")?,
        other => {
            let message = format!("`{other}` is none of pause, resume, trigger");
            return Err(Error::new(ErrorKind::NotFound, "http.not_found", message).into());
        }
    };
    record::schedule(&container, &context, action, &name).await?;
    Ok(Json(Done { name, done: order }))
}
