//! `/v1/jobs`: enqueue, look, cancel, redrive.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Query, Result, Route};
use runtime_jobs::store::Filter;
use runtime_jobs::{BatchId, JOBS, JobId, JobState};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, ErrorKind, Reach};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_view::JobView;
use super::new_job::Enqueue;
use super::schema::{Id, Label, StateName, check_label, whole};
use crate::{kinds, record};

const TAG: &str = "jobs";

/// The most jobs one page or one redrive covers.
const MAX_LIMIT: u32 = 1000;

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::post("/v1/jobs", enqueue)
            .summary("Enqueues a job. Once accepted, it is durable.")
            .tag(TAG)
            .scope("jobs:write")
            .takes::<Enqueue>()
            .answers::<Accepted>(202, "The job is accepted, or its unique key is taken by the job named."),
    );
    app.route(
        Route::get("/v1/jobs", list)
            .summary("Lists jobs, newest first.")
            .tag(TAG)
            .scope("jobs:read")
            .query::<ListQuery>()
            .answers::<JobPage>(200, "A page of jobs."),
    );
    app.route(
        Route::get("/v1/jobs/{id}", show)
            .summary("Shows a job with every attempt at it.")
            .tag(TAG)
            .scope("jobs:read")
            .path::<ById>()
            .answers::<JobView>(200, "The job.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/jobs/{id}/cancel", cancel)
            .summary("Cancels a job: at once while it waits, cooperatively while it runs.")
            .tag(TAG)
            .scope("jobs:write")
            .path::<ById>()
            .answers::<Standing>(202, "Where the job stands now.")
            .problems(&[404, 409]),
    );
    app.route(
        Route::post("/v1/jobs/{id}/redrive", redrive)
            .summary("Puts a dead job back into the queue.")
            .tag(TAG)
            .scope("jobs:write")
            .path::<ById>()
            .answers::<Redriven>(202, "It is back in the queue.")
            .problems(&[404, 409]),
    );
    app.route(
        Route::post("/v1/jobs/redrive", redrive_all)
            .summary("Puts dead jobs back into the queue, the newest first.")
            .tag(TAG)
            .scope("jobs:write")
            .takes::<RedriveAll>()
            .answers::<Redriven>(202, "So many are back in the queue."),
    );
    app.route(
        Route::get("/v1/jobs/stats", stats)
            .summary("Counts jobs, and names kinds nobody handles.")
            .tag(TAG)
            .scope("jobs:read")
            .answers::<StatsView>(200, "The counts."),
    );
}

/// Which job.
#[derive(Debug, Deserialize, JsonSchema)]
struct ById {
    /// The job's id.
    #[schemars(with = "Id")]
    id: JobId,
}

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Accepted {
    /// The job's id.
    id: String,
    /// Whether the unique key was taken, so that nothing was added.
    duplicate: bool,
}

async fn enqueue(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(body): Json<Enqueue>,
) -> Result<Response> {
    kinds::check(&context, &body.kind, &body.payload)?;
    let done = container.get(JOBS).await?.enqueue(&context, body.into_job()?).await?;
    let location = format!("/v1/jobs/{}", done.id);
    let accepted = Accepted { id: done.id.to_string(), duplicate: done.duplicate };
    let mut response = Json(accepted).status(StatusCode::ACCEPTED);
    let location = HeaderValue::from_str(&location).map_err(Error::internal)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Which jobs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only in this state: waiting, scheduled, available, running, completed, dead or cancelled.
    #[schemars(with = "Option<StateName>")]
    state: Option<JobState>,
    /// Only of this kind.
    kind: Option<String>,
    /// Only in this queue.
    queue: Option<String>,
    /// Only those this batch counts.
    #[schemars(with = "Option<Id>")]
    batch: Option<BatchId>,
    /// Only older than this one: the `next` of the page before.
    #[schemars(with = "Option<Id>")]
    before: Option<JobId>,
    /// At most so many; 50 unless told, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

impl ListQuery {
    fn filter(self) -> Result<Filter, Error> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(over_limit("limit"));
        }
        Ok(Filter {
            tenant: None,
            state: self.state,
            kind: self.kind,
            queue: self.queue,
            batch: self.batch,
            before: self.before,
            limit,
        })
    }
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct JobPage {
    /// The jobs, without their attempts.
    jobs: Vec<JobView>,
    /// What to ask for as `before` to get the next page.
    next: Option<String>,
}

async fn list(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Query(query): Query<ListQuery>,
) -> Result<Json<JobPage>> {
    let filter = query.filter()?;
    let limit = filter.limit as usize;
    let jobs = container.get(JOBS).await?.list(&reach(context), filter).await?;
    let next = jobs.last().filter(|_| jobs.len() == limit).map(|job| job.id.to_string());
    Ok(Json(JobPage { jobs: jobs.into_iter().map(JobView::listed).collect(), next }))
}

/// The operator, who reaches everywhere and has not narrowed the request to a tenant, sees the jobs of all of them.
pub(super) fn reach(mut context: Context) -> Context {
    let everywhere = context.principal.as_ref().is_some_and(|principal| principal.reach == Reach::Everywhere);
    if everywhere && context.tenant.as_ref().is_none_or(|tenant| tenant.tenant.is_none()) {
        context.tenant = None;
    }
    context
}

async fn show(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Json<JobView>> {
    Ok(Json(container.get(JOBS).await?.get(&reach(context), id).await?.into()))
}

/// Where a job stands.
#[derive(Debug, Serialize, JsonSchema)]
struct Standing {
    /// The job's id.
    id: String,
    /// `cancelled` at once, `running` until its handler has stopped.
    state: String,
}

async fn cancel(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Response> {
    let state = container.get(JOBS).await?.cancel(&reach(context.clone()), id).await?;
    record::job(&container, &context, "jobs.cancelled", &id.to_string()).await?;
    Ok(Json(Standing { id: id.to_string(), state: state.as_str().to_owned() }).status(StatusCode::ACCEPTED))
}

/// What was put back.
#[derive(Debug, Serialize, JsonSchema)]
struct Redriven {
    /// How many jobs.
    redriven: u64,
}

async fn redrive(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Response> {
    container.get(JOBS).await?.redrive(&reach(context.clone()), id).await?;
    record::job(&container, &context, "jobs.redriven", &id.to_string()).await?;
    Ok(Json(Redriven { redriven: 1 }).status(StatusCode::ACCEPTED))
}

/// Which dead jobs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RedriveAll {
    /// Only of this kind.
    #[schemars(with = "Option<Label>")]
    kind: Option<String>,
    /// Only of this queue.
    #[schemars(with = "Option<Label>")]
    queue: Option<String>,
    /// At most so many; 1000 unless told.
    #[serde(default, deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

async fn redrive_all(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(body): Json<RedriveAll>,
) -> Result<Response> {
    let limit = body.limit.unwrap_or(MAX_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(over_limit("/limit").into());
    }
    check_label("/kind", body.kind.as_deref())?;
    check_label("/queue", body.queue.as_deref())?;
    let filter = Filter { kind: body.kind, queue: body.queue, limit, ..Filter::default() };
    let redriven = container.get(JOBS).await?.redrive_all(&reach(context.clone()), filter).await?;
    record::job(&container, &context, "jobs.redriven", &format!("{redriven} jobs")).await?;
    Ok(Json(Redriven { redriven }).status(StatusCode::ACCEPTED))
}

fn over_limit(at: &str) -> Error {
    Error::new(ErrorKind::Invalid, "http.invalid_query", "`limit` must be 1 to 1000")
        .with_detail(at, "must be 1 to 1000")
}

/// The counts.
#[derive(Debug, Serialize, JsonSchema)]
struct StatsView {
    /// Unfinished jobs by queue and kind.
    queues: Vec<DepthView>,
    /// Finished jobs still kept, by state.
    finished: std::collections::BTreeMap<String, u64>,
    /// Kinds with waiting jobs that no live worker handles.
    unhandled: Vec<String>,
}

/// Unfinished jobs of one queue and kind.
#[derive(Debug, Serialize, JsonSchema)]
struct DepthView {
    /// The queue.
    queue: String,
    /// The kind.
    kind: String,
    /// How many, by state.
    states: std::collections::BTreeMap<String, u64>,
    /// When the oldest available one could have run.
    oldest: Option<String>,
}

async fn stats(State(container): State<Container>, Ctx(context): Ctx) -> Result<Json<StatsView>> {
    // Counts run over all tenants.
    if reach(context).tenant.is_some() {
        return Err(
            Error::new(ErrorKind::Forbidden, "auth.scope_missing", "counts are the operator's").into()
        );
    }
    let stats = container.get(JOBS).await?.stats().await?;
    let depth = |d: runtime_jobs::store::Depth| DepthView {
        queue: d.queue,
        kind: d.kind,
        states: d.states,
        oldest: d.oldest.map(|at| at.to_string()),
    };
    Ok(Json(StatsView {
        queues: stats.depths.into_iter().map(depth).collect(),
        finished: stats.finished,
        unhandled: stats.unhandled,
    }))
}
