//! `/v1/batches`: jobs that are counted together, and what follows when they have ended.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use runtime_http::axum::extract::State;
use runtime_http::axum::response::Response;
use runtime_http::{Ctx, HttpApp, Json, Path, Result, Route};
use runtime_jobs::{Batch, BatchId, JOBS, NewBatch, NewJob};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::jobs::reach;
use super::new_job::Enqueue;
use super::schema::{Id, object};
use crate::{kinds, record};

const TAG: &str = "jobs";

/// The most jobs one request brings. Members that run may add more, and so may requests that name the batch.
const MOST: usize = 10_000;

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::post("/v1/batches", open)
            .summary("Enqueues jobs that are counted together, and what follows when they have ended. All or none.")
            .tag(TAG)
            .scope("jobs:write")
            .takes::<NewBatchBody>()
            .answers::<Opened>(202, "The batch is accepted."),
    );
    app.route(
        Route::get("/v1/batches/{id}", show)
            .summary("Counts a batch.")
            .tag(TAG)
            .scope("jobs:read")
            .path::<ById>()
            .answers::<BatchView>(200, "The batch.")
            .problems(&[404]),
    );
    app.route(
        Route::post("/v1/batches/{id}/cancel", cancel)
            .summary("Cancels what is left of a batch, which takes no more jobs from then on.")
            .tag(TAG)
            .scope("jobs:write")
            .path::<ById>()
            .answers::<Cancelled>(202, "So many were cancelled, or asked to stop.")
            .problems(&[404]),
    );
}

/// Which batch.
#[derive(Debug, Deserialize, JsonSchema)]
struct ById {
    /// The batch's id.
    #[schemars(with = "Id")]
    id: BatchId,
}

/// Jobs to be counted together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewBatchBody {
    /// The jobs; without any the batch has ended at once.
    #[schemars(length(max = 10_000))]
    jobs: Vec<Enqueue>,
    /// Run when every job has completed, be it after having been redriven.
    #[serde(default, deserialize_with = "object")]
    on_success: Option<Enqueue>,
    /// Run as soon as the first job is dead or cancelled.
    #[serde(default, deserialize_with = "object")]
    on_failure: Option<Enqueue>,
    /// Run when every job has ended, whatever became of it.
    #[serde(default, deserialize_with = "object")]
    on_end: Option<Enqueue>,
}

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Opened {
    /// The batch's id.
    id: String,
    /// The jobs, in their order; a duplicate is another's and is not counted.
    jobs: Vec<String>,
    /// What follows, in the order of success, failure and end.
    callbacks: Vec<String>,
}

async fn open(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(body): Json<NewBatchBody>,
) -> Result<Response> {
    if body.jobs.len() > MOST {
        let message = format!("must have at most {MOST} jobs");
        let wrong = Error::new(ErrorKind::Invalid, "http.invalid_json", format!("`jobs` {message}"));
        return Err(wrong.with_detail("jobs", message).into());
    }
    let jobs: Vec<NewJob> =
        body.jobs.into_iter().map(|job| checked(&context, job)).collect::<Result<_, Error>>()?;
    let mut batch = NewBatch::new(jobs);
    if let Some(callback) = body.on_success {
        batch = batch.on_success(checked(&context, callback)?);
    }
    if let Some(callback) = body.on_failure {
        batch = batch.on_failure(checked(&context, callback)?);
    }
    if let Some(callback) = body.on_end {
        batch = batch.on_end(checked(&context, callback)?);
    }
    let done = container.get(JOBS).await?.enqueue_batch(&context, batch).await?;
    let ids = |jobs: &[runtime_jobs::Enqueued]| jobs.iter().map(|job| job.id.to_string()).collect();
    let opened = Opened { id: done.id.to_string(), jobs: ids(&done.jobs), callbacks: ids(&done.callbacks) };
    let location = HeaderValue::from_str(&format!("/v1/batches/{}", done.id)).map_err(Error::internal)?;
    let mut response = Json(opened).status(StatusCode::ACCEPTED);
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn checked(context: &Context, job: Enqueue) -> Result<NewJob, Error> {
    kinds::check(context, &job.kind, &job.payload)?;
    job.into_job()
}

/// How a batch stands.
#[derive(Debug, Serialize, JsonSchema)]
struct BatchView {
    /// Its id.
    id: String,
    /// Its jobs.
    total: u64,
    /// Those that have not ended.
    open: u64,
    /// Those that have completed.
    completed: u64,
    /// Those that are dead; redriving one makes it open again.
    dead: u64,
    /// Those that were cancelled.
    cancelled: u64,
    /// The first that failed.
    cause: Option<String>,
    /// Whether it was cancelled, and so takes no more jobs.
    closed: bool,
    /// When it was opened.
    created_at: String,
}

impl From<Batch> for BatchView {
    fn from(batch: Batch) -> Self {
        Self {
            id: batch.id.to_string(),
            total: batch.total,
            open: batch.open,
            completed: batch.completed,
            dead: batch.dead,
            cancelled: batch.cancelled,
            cause: batch.cause.map(|id| id.to_string()),
            closed: batch.closed,
            created_at: batch.created_at.to_string(),
        }
    }
}

async fn show(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Json<BatchView>> {
    Ok(Json(container.get(JOBS).await?.batch(&reach(context), id).await?.into()))
}

/// What a cancel did.
#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// How many jobs were cancelled, or asked to stop.
    count: u64,
}

async fn cancel(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Response> {
    let count = container.get(JOBS).await?.cancel_batch(&reach(context.clone()), id).await?;
    record::job(&container, &context, "jobs.batch_cancelled", &id.to_string()).await?;
    Ok(Json(Cancelled { count }).status(StatusCode::ACCEPTED))
}
