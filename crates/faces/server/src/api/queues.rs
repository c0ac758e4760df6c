//! `/v1/queues`: what is paused; and how far a job is, as it goes on.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use runtime_http::axum::body::Body;
use runtime_http::axum::extract::State;
use runtime_http::axum::response::{IntoResponse, Response};
use runtime_http::{Ctx, HttpApp, Json, Path, Result, Route};
use runtime_jobs::store::Pause;
use runtime_jobs::{JOBS, JobId, Jobs};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Clock, Context, Error, SystemClock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jobs::reach;
use super::schema::{Id, Label, check_label};
use crate::record;

const TAG: &str = "jobs";

/// How often a watched job is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// After so many looks without news a comment keeps the connection open.
const QUIET_LOOKS: u32 = 60;

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::get("/v1/queues", list)
            .summary("Names the queues, and kinds in them, that are paused.")
            .tag(TAG)
            .scope("jobs:read")
            .answers::<Queues>(200, "What is paused."),
    );
    for (path, summary) in [
        ("/v1/queues/{queue}/pause", "Lets nothing more of a queue, or of one kind in it, begin."),
        ("/v1/queues/{queue}/resume", "Lets a queue, or one kind in it, go on."),
    ] {
        let paused = path.ends_with("pause");
        let handler = move |state: State<Container>, context: Ctx, path: Path<ByQueue>, body: Json<Which>| {
            set(state, context, path, body, paused)
        };
        app.route(
            Route::post(path, handler)
                .summary(summary)
                .tag(TAG)
                .scope("queues:write")
                .path::<ByQueue>()
                .takes::<Which>()
                .answers::<Queues>(200, "What is paused now.")
                .problems(&[403]),
        );
    }
    app.route(
        Route::get("/v1/jobs/{id}/progress", progress)
            .summary("Shows how far a job is, as its handler told.")
            .tag(TAG)
            .scope("jobs:read")
            .path::<ById>()
            .answers::<ProgressView>(200, "What its attempts have kept.")
            .problems(&[404]),
    );
    app.route(
        Route::get("/v1/jobs/{id}/events", watch)
            .summary("Follows a job until it ends, as server-sent events: `state` and `progress`.")
            .tag(TAG)
            .scope("jobs:read")
            .path::<ById>()
            .problems(&[404]),
    );
}

/// Which queue.
#[derive(Debug, Deserialize, JsonSchema)]
struct ByQueue {
    /// Its name.
    #[schemars(with = "Label")]
    queue: String,
}

/// Which job.
#[derive(Debug, Deserialize, JsonSchema)]
struct ById {
    /// The job's id.
    #[schemars(with = "Id")]
    id: JobId,
}

/// The whole queue, or one kind.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Which {
    /// Only this kind.
    #[schemars(with = "Option<Label>")]
    kind: Option<String>,
}

/// What is paused.
#[derive(Debug, Serialize, JsonSchema)]
struct Queues {
    /// By queue and kind.
    paused: Vec<PauseView>,
}

/// A queue, or a kind in it, that is paused.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PauseView {
    /// The queue.
    pub(crate) queue: String,
    /// The kind; the whole queue when absent.
    pub(crate) kind: Option<String>,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        Self { queue: pause.queue, kind: pause.kind }
    }
}

async fn paused(jobs: &Jobs) -> Result<Json<Queues>> {
    Ok(Json(Queues { paused: jobs.paused().await?.into_iter().map(PauseView::from).collect() }))
}

async fn list(State(container): State<Container>) -> Result<Json<Queues>> {
    paused(&*container.get(JOBS).await?).await
}

async fn set(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ByQueue { queue }): Path<ByQueue>,
    Json(Which { kind }): Json<Which>,
    pause: bool,
) -> Result<Json<Queues>> {
    operators_only(&context)?;
    check_label("/queue", Some(&queue))?;
    check_label("/kind", kind.as_deref())?;
    let jobs = container.get(JOBS).await?;
    let name = kind.as_ref().map_or_else(|| queue.clone(), |kind| format!("{queue}/{kind}"));
    if pause {
        jobs.pause(&queue, kind.as_deref()).await?;
        record::job(&container, &context, "jobs.paused", &name).await?;
    } else {
        jobs.resume(&queue, kind.as_deref()).await?;
        record::job(&container, &context, "jobs.resumed", &name).await?;
    }
    paused(&jobs).await
}

/// A queue is every tenant's, so stopping it is not for one of them.
pub(super) fn operators_only(context: &Context) -> Result<(), Error> {
    super::operators_only(context, "jobs.operators_only", "queues are shared by all tenants")
}

/// How far a job is.
#[derive(Debug, Serialize, JsonSchema)]
struct ProgressView {
    /// Where it stands.
    state: String,
    /// What its handler told last.
    progress: Value,
    /// Where another attempt would go on.
    checkpoint: Value,
}

async fn progress(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Json<ProgressView>> {
    let (jobs, context) = (container.get(JOBS).await?, reach(context));
    let state = jobs.get(&context, id).await?.state;
    let kept = jobs.progress(&context, id).await?;
    Ok(Json(ProgressView {
        state: state.as_str().to_owned(),
        progress: kept.progress.unwrap_or_default(),
        checkpoint: kept.checkpoint.unwrap_or_default(),
    }))
}

/// What has been told to whoever watches.
struct Watching {
    jobs: Jobs,
    context: Context,
    id: JobId,
    told: [String; 2],
    quiet: u32,
    over: bool,
}

async fn watch(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Path(ById { id }): Path<ById>,
) -> Result<Response> {
    let (jobs, context) = ((*container.get(JOBS).await?).clone(), reach(context));
    // Refused before the head is out.
    jobs.get(&context, id).await?;
    let watching = Watching { jobs, context, id, told: Default::default(), quiet: 0, over: false };
    let events = stream::unfold(watching, next).map(Ok::<_, Infallible>);
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(events)).into_response())
}

/// The next news; the job's end is the last.
async fn next(mut watching: Watching) -> Option<(String, Watching)> {
    if watching.over {
        return None;
    }
    loop {
        let news = look(&mut watching).await;
        match news {
            Ok(news) if !news.is_empty() => return Some((news, watching)),
            Ok(_) => {}
            Err(error) => {
                watching.over = true;
                let error = json!({ "code": error.code(), "message": error.to_string() });
                return Some((event("error", &error), watching));
            }
        }
        watching.quiet += 1;
        if watching.quiet.is_multiple_of(QUIET_LOOKS) {
            return Some((": still there\n\n".to_owned(), watching));
        }
        SystemClock.sleep(LOOK).await;
    }
}

async fn look(watching: &mut Watching) -> Result<String, Error> {
    let job = watching.jobs.get(&watching.context, watching.id).await?;
    let kept = watching.jobs.progress(&watching.context, watching.id).await?;
    let state = json!({ "state": job.state, "attempt": job.attempt });
    let progress = kept.progress.map(|progress| event("progress", &progress)).unwrap_or_default();
    let mut news = String::new();
    // Progress first: what was reached is told before that it is over.
    for (told, text) in watching.told.iter_mut().zip([progress, event("state", &state)]) {
        if *told != text {
            news.push_str(&text);
            *told = text;
        }
    }
    watching.over = job.state.is_finished();
    Ok(news)
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
