//! Maintenance by schedule: each task that crates contribute is a job of kind `maintenance.<name>`, enqueued once in the
//! fleet by a schedule of that name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use runtime_cron::{CronContributions, JobOf, Schedule};
use runtime_jobs::{Handlers, JobContext, JobHandlers};
use runtime_kernel::app::{App, Maintenance, MaintenanceTask, SetupError};
use runtime_kernel::container::Container;
use runtime_kernel::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the kinds and schedules of maintenance begin with.
pub(crate) const PREFIX: &str = "maintenance.";

/// Others go first.
const PRIORITY: i16 = 10;

/// The app's container, once it has started.
pub(crate) type Started = Arc<OnceLock<Container>>;

/// What an operator sets about one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TaskConfig {
    /// Whether it is run at all. It is unless told.
    pub(crate) enabled: bool,
    /// When: a cron expression, or `@every 1h`. As its crate says unless told.
    pub(crate) when: Option<String>,
    /// Whose local time that is. UTC unless told.
    pub(crate) zone: Option<String>,
    /// The queue its jobs wait in; some worker must serve it. `default` unless told.
    pub(crate) queue: Option<String>,
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self { enabled: true, when: None, zone: None, queue: None }
    }
}

/// Takes every task contributed so far.
pub(crate) fn register(
    app: &mut App,
    settings: &BTreeMap<String, TaskConfig>,
    started: &Started,
) -> Result<(), SetupError> {
    let tasks = app.contribute::<Maintenance>().take();
    let names: BTreeSet<&str> = tasks.iter().map(MaintenanceTask::name).collect();
    if names.len() < tasks.len() {
        return Err(SetupError::module("server", "two maintenance tasks have one name"));
    }
    if let Some(unknown) = settings.keys().find(|name| !names.contains(name.as_str())) {
        let known = names.into_iter().collect::<Vec<_>>().join(", ");
        let problem = format!("server.maintenance.{unknown}: there is no such task; there are {known}");
        return Err(SetupError::module("server", problem));
    }
    let (mut schedules, mut handlers) = (Vec::new(), Handlers::new());
    for task in tasks {
        let wanted = settings.get(task.name()).cloned().unwrap_or_default();
        let kind = format!("{PREFIX}{}", task.name());
        if wanted.enabled {
            schedules.push(schedule(&kind, &task, wanted)?);
        }
        // Known to this process either way: another one's configuration may differ.
        let started = Arc::clone(started);
        handlers = handlers.handle_value(kind, move |job, _| run(task.clone(), started.get().cloned(), job));
    }
    app.contribute::<CronContributions>().schedules.extend(schedules);
    app.contribute::<JobHandlers>().0.merge(handlers);
    Ok(())
}

fn schedule(kind: &str, task: &MaintenanceTask, wanted: TaskConfig) -> Result<Schedule, SetupError> {
    let job = JobOf {
        kind: kind.to_owned(),
        payload: Value::Null,
        queue: wanted.queue,
        priority: PRIORITY,
        max_attempts: Some(3),
    };
    let payload = serde_json::to_value(job).map_err(|error| SetupError::module("server", error))?;
    let when = wanted.when.unwrap_or_else(|| task.when().to_owned());
    let schedule = Schedule::new(kind, when, "job").payload(payload);
    Ok(match wanted.zone {
        Some(zone) => schedule.zone(zone),
        None => schedule,
    })
}

async fn run(task: MaintenanceTask, services: Option<Container>, job: JobContext) -> Result<Value, Error> {
    let services = services.ok_or_else(|| Error::internal("a job ran before the app had started"))?;
    let cancelled = || Error::new(ErrorKind::Cancelled, "job.cancelled", "the job was cancelled");
    tokio::select! {
        done = task.run(services) => Ok(json!({ "done": done? })),
        () = job.cancelled.cancelled() => Err(cancelled()),
    }
}
