//! Wires workflows into an `App`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode, SharedClock};
use runtime_telemetry::MetricsApp;

use crate::approvers::Approvers;
use crate::config::WorkflowConfig;
use crate::definition::{Definition, Format, MAX_BYTES};
use crate::event::Event;
use crate::instance::Instance;
use crate::metrics::WorkflowMetrics;
use crate::store::WorkflowStore;
use crate::ticker::keep_time;
use crate::workflows::Workflows;

/// The app's workflows.
pub const WORKFLOWS: Token<Workflows> = Token::new("work.workflows");

impl Section for WorkflowConfig {
    const PATH: &'static str = "workflow";

    fn validate(&self) -> Result<(), Invalid> {
        self.problem().map_or(Ok(()), |(key, problem)| Err(Invalid::new(key, problem)))
    }
}

type Told = Arc<dyn Fn(&Instance, &[Event]) + Send + Sync>;

/// Reads the section `workflow`, provides [`WORKFLOWS`], kept in the app's database (in memory without one), installs the
/// configured definitions at the start, and keeps time in the modes `worker`, `scheduler` and `all`.
#[derive(Clone, Default)]
pub struct WorkflowModule {
    approvers: Option<Arc<dyn Approvers>>,
    told: Vec<Told>,
}

impl std::fmt::Debug for WorkflowModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowModule").finish_non_exhaustive()
    }
}

impl WorkflowModule {
    /// With the people of the configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// With somebody else who knows the people.
    #[must_use]
    pub fn approvers(mut self, approvers: impl Approvers) -> Self {
        self.approvers = Some(Arc::new(approvers));
        self
    }

    /// Calls `told` after each change this process has written.
    #[must_use]
    pub fn hook(mut self, told: impl Fn(&Instance, &[Event]) + Send + Sync + 'static) -> Self {
        self.told.push(Arc::new(told));
        self
    }
}

impl Module for WorkflowModule {
    fn name(&self) -> &'static str {
        "workflow"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        runtime_migrate::MigrateApp::migrations(app, crate::migrations::SET);
        app.section::<WorkflowConfig>().map(drop)
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: WorkflowConfig = app.section()?;
        let mut definitions = config.definitions.clone();
        if let Some(folder) = &config.definitions_dir {
            definitions.extend(read(folder).map_err(|error| SetupError::module("workflow", error))?);
        }
        let people: Arc<dyn Approvers> = match &self.approvers {
            Some(approvers) => Arc::clone(approvers),
            None => Arc::new(config.people.clone()),
        };
        let metrics = WorkflowMetrics::new(&app.metrics()).map_err(Error::internal)?;
        let (mut told, clock) = (self.told.clone(), app.shared_clock());
        let counted = metrics.clone();
        told.push(Arc::new(move |instance, events| counted.happened(instance, events)));
        let make = move |store: Arc<dyn WorkflowStore>, clock: SharedClock| {
            let workflows = Workflows::new(store, Arc::clone(&people), config.clone(), clock);
            told.iter().cloned().fold(workflows, |workflows, told| {
                workflows.hook(move |instance, events| told(instance, events))
            })
        };
        provide(app, &clock, make);
        if !definitions.is_empty() {
            app.on_start("workflow definitions", move |container| async move {
                let workflows = container.get(WORKFLOWS).await?;
                for definition in definitions {
                    workflows.install(definition).await?;
                }
                Ok::<_, Error>(())
            });
        }
        app.service(Ticker);
        app.service(Measuring(metrics));
        Ok(())
    }
}

/// In the app's database if it has one. Whether it has is known once every module has registered.
fn provide(
    app: &mut App,
    clock: &SharedClock,
    make: impl Fn(Arc<dyn WorkflowStore>, SharedClock) -> Workflows + Send + Sync + 'static,
) {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if app.services().contains(runtime_db::DB) {
        let clock = Arc::clone(clock);
        app.services().singleton(WORKFLOWS, (runtime_db::DB,), move |(db,): (Arc<runtime_db::Database>,)| {
            let workflows = make(Arc::new(crate::SqlWorkflows::new((*db).clone())), Arc::clone(&clock));
            async move { Ok::<_, Error>(workflows) }
        });
        return;
    }
    let store = Arc::new(crate::MemoryWorkflows::new(Arc::clone(clock)));
    app.services().value(WORKFLOWS, Arc::new(make(store, Arc::clone(clock))));
}

/// Every definition of a folder, by file name.
fn read(folder: &Path) -> Result<Vec<Definition>, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let entries = std::fs::read_dir(folder).map_err(|error| wrong(folder, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| wrong(folder, &error))?.path());
    }
    paths.sort();
    let mut definitions = Vec::new();
    for path in paths {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let Some(format) = Format::of_ending(ending) else { continue };
        let metadata = std::fs::metadata(&path).map_err(|error| wrong(&path, &error))?;
        if metadata.len() > MAX_BYTES as u64 {
            return Err(wrong(&path, &format!("larger than {MAX_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(&path, &error))?;
        definitions.push(Definition::parse(&text, format).map_err(|error| wrong(&path, &error))?);
    }
    Ok(definitions)
}

struct Ticker;

#[async_trait]
impl Service for Ticker {
    fn name(&self) -> &'static str {
        "workflow.ticker"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker, Mode::Scheduler]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let workflows = run.services.get(WORKFLOWS).await?;
        keep_time(&workflows, run.stop.stopped()).await;
        Ok(())
    }
}

/// How often it is measured how much waits for people.
const MEASURED: Duration = Duration::from_secs(15);

struct Measuring(WorkflowMetrics);

#[async_trait]
impl Service for Measuring {
    fn name(&self) -> &'static str {
        "workflow.measure"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker, Mode::Scheduler]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let workflows = run.services.get(WORKFLOWS).await?;
        loop {
            match workflows.standing().await {
                Ok(standing) => self.0.stands(&standing),
                Err(error) => {
                    let error = Error::from(error).report();
                    tracing::warn!(error, "how much waits for people could not be measured");
                }
            }
            if run.stop.until(run.clock.sleep(MEASURED)).await.is_none() {
                return Ok(());
            }
        }
    }
}
