//! Wires schedules into an `App`.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode};
use runtime_telemetry::MetricsApp;

use crate::action::{Actions, Fire};
use crate::config::CronConfig;
use crate::metrics::CronMetrics;
use crate::schedule::Schedule;
use crate::scheduler::Scheduler;
use crate::schedules::Schedules;
use crate::store::{Origin, Tick};

/// The app's schedules.
pub const SCHEDULES: Token<Schedules> = Token::new("work.schedules");

/// Actions and schedules other modules add: `app.contribute::<CronContributions>()`.
#[derive(Debug, Default)]
pub struct CronContributions {
    /// What ticks set going.
    pub actions: Actions,
    /// The program's own schedules.
    pub schedules: Vec<Schedule>,
}

/// Reads the section `cron`, provides [`SCHEDULES`], and fires them in the modes `scheduler` and `all`.
///
/// Schedules live in the app's database if it has one, in memory without. Those of the configuration and of the program
/// are kept when a scheduler starts; what they no longer name is removed. With the feature `jobs` and a `JobsModule` in
/// the app there is the action `job`: its payload is a `JobOf`.
#[derive(Debug, Default)]
pub struct CronModule {
    actions: Actions,
    schedules: Vec<Schedule>,
}

impl CronModule {
    /// A module without actions and schedules of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action.
    #[must_use]
    pub fn on(mut self, name: impl Into<String>, action: impl Fire) -> Self {
        self.actions = self.actions.on(name, action);
        self
    }

    /// Adds a function as an action.
    #[must_use]
    pub fn on_tick<F, Fut>(mut self, name: impl Into<String>, action: F) -> Self
    where
        F: Fn(Tick) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.actions = self.actions.on_tick(name, action);
        self
    }

    /// Adds an action that is part of the tick's transaction.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[must_use]
    pub fn on_in_tx(mut self, name: impl Into<String>, action: impl crate::FireInTx) -> Self {
        self.actions = self.actions.on_in_tx(name, action);
        self
    }

    /// Adds a schedule of the program.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedules.push(schedule);
        self
    }
}

impl Module for CronModule {
    fn name(&self) -> &'static str {
        "cron"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        app.section::<CronConfig>()?;
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        runtime_migrate::MigrateApp::migrations(app, crate::migrations::SET);
        let contributions = app.contribute::<CronContributions>();
        contributions.actions.merge(self.actions.clone());
        contributions.schedules.extend(self.schedules.iter().cloned());
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: CronConfig = app.section()?;
        let CronContributions { actions, schedules } = app.take_contribution::<CronContributions>();
        let has_jobs = has_jobs(app);
        let named = config.schedules.iter().chain(&schedules);
        let fires = app.running_mode().includes(Mode::Scheduler);
        for schedule in named.filter(|_| fires) {
            let known = actions.has(&schedule.action) || (has_jobs && schedule.action == "job");
            if !known {
                let why =
                    format!("schedule `{}`: no action `{}` is registered", schedule.name, schedule.action);
                return Err(SetupError::module("cron", why));
            }
            let resolved = config.resolve(schedule.clone()).and_then(|schedule| schedule.check(""));
            resolved.map_err(|error| SetupError::module("cron", error))?;
        }
        let metrics = CronMetrics::new(&app.metrics()).map_err(Error::internal)?;
        let configured = config.schedules.clone();
        provide(app, config)?;
        let actions = Mutex::new(actions);
        app.service(Scheduling { actions, has_jobs, configured, schedules, metrics });
        Ok(())
    }
}

#[cfg(feature = "jobs")]
fn has_jobs(app: &mut App) -> bool {
    app.services().contains(runtime_jobs::JOBS)
}

#[cfg(not(feature = "jobs"))]
fn has_jobs(_: &mut App) -> bool {
    false
}

/// In the app's database if it has one. Whether it has is known once every module has registered.
fn provide(app: &mut App, config: CronConfig) -> Result<(), SetupError> {
    let clock = app.shared_clock();
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if app.services().contains(runtime_db::DB) {
        app.services().singleton(SCHEDULES, (runtime_db::DB,), move |(db,): (Arc<runtime_db::Database>,)| {
            let made = Schedules::new(crate::SqlStore::new((*db).clone()), config.clone(), clock.clone());
            std::future::ready(made.map_err(Error::from))
        });
        return Ok(());
    }
    let made = Schedules::new(crate::MemoryStore::new(clock.clone()), config, clock).map_err(Error::from)?;
    app.services().value(SCHEDULES, made);
    Ok(())
}

struct Scheduling {
    actions: Mutex<Actions>,
    has_jobs: bool,
    configured: Vec<Schedule>,
    schedules: Vec<Schedule>,
    metrics: CronMetrics,
}

impl Scheduling {
    async fn actions(&self, run: &Run) -> Result<Actions, Error> {
        let actions = self.actions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !self.has_jobs || actions.has("job") {
            return Ok(actions);
        }
        with_jobs(actions, run).await
    }
}

#[cfg(feature = "jobs")]
async fn with_jobs(actions: Actions, run: &Run) -> Result<Actions, Error> {
    let jobs = run.services.get(runtime_jobs::JOBS).await?;
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if let Ok(db) = run.services.get(runtime_db::DB).await {
        let store = runtime_jobs::SqlStore::new((*db).clone());
        return Ok(actions.on_in_tx("job", crate::EnqueueJob::in_tx((*jobs).clone(), store)));
    }
    Ok(actions.on("job", crate::EnqueueJob::new((*jobs).clone())))
}

#[cfg(not(feature = "jobs"))]
fn with_jobs(actions: Actions, _: &Run) -> std::future::Ready<Result<Actions, Error>> {
    std::future::ready(Ok(actions))
}

#[async_trait]
impl Service for Scheduling {
    fn name(&self) -> &'static str {
        "cron.scheduler"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Scheduler]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let schedules = run.services.get(SCHEDULES).await?;
        let actions = self.actions(&run).await?;
        schedules.sync(Origin::Code, self.schedules.clone()).await?;
        schedules.sync(Origin::Config, self.configured.clone()).await?;
        let firing = Scheduler::new((*schedules).clone(), actions).with_metrics(self.metrics.clone());
        firing.run(run.stop.stopped()).await;
        Ok(())
    }
}
