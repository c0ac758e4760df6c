//! Wires jobs into an `App`.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode};
use runtime_telemetry::MetricsApp;
use serde::Serialize;
use serde_json::Value;

use crate::config::JobsConfig;
use crate::handler::{Handlers, JobContext, JobKind};
use crate::layer::Next;
use crate::metrics::JobMetrics;
use crate::queue::Jobs;
use crate::worker::{Worker, keep_house};

/// The app's jobs.
pub const JOBS: Token<Jobs> = Token::new("work.jobs");

/// Handlers other modules add: `app.contribute::<JobHandlers>().0.merge(..)`.
#[derive(Debug, Default)]
pub struct JobHandlers(pub Handlers);

/// Reads the section `jobs`, provides [`JOBS`], runs a worker in the modes `worker` and `all`, and keeps house there and
/// in `scheduler`.
///
/// Jobs live in the app's database with the feature `sqlite` or `postgres`, in memory without.
#[derive(Debug, Default)]
pub struct JobsModule {
    handlers: Handlers,
    /// Around the handlers of every module.
    around: Handlers,
}

impl JobsModule {
    /// A module without handlers: it enqueues, and runs what others contribute.
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles a typed kind.
    #[must_use]
    pub fn handle<K, R, F, Fut>(mut self, handler: F) -> Self
    where
        K: JobKind,
        R: Serialize,
        F: Fn(JobContext, K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Error>> + Send + 'static,
    {
        self.handlers = self.handlers.handle(handler);
        self
    }

    /// Handles a kind whose payload and result are plain JSON.
    #[must_use]
    pub fn handle_value<F, Fut>(mut self, kind: impl Into<String>, handler: F) -> Self
    where
        F: Fn(JobContext, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        self.handlers = self.handlers.handle_value(kind, handler);
        self
    }

    /// Runs something around every attempt, whichever module's handler it is; see [`Handlers::layer`].
    #[must_use]
    pub fn layer<F, Fut>(mut self, layer: F) -> Self
    where
        F: Fn(JobContext, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        self.around = self.around.layer(layer);
        self
    }
}

impl Module for JobsModule {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: JobsConfig = app.section()?;
        app.contribute::<JobHandlers>().0.merge(self.handlers.clone());
        provide(app, config);
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let mut handlers = self.around.clone();
        handlers.merge(app.take_contribution::<JobHandlers>().0);
        if !handlers.kinds().is_empty() {
            let metrics = JobMetrics::new(&app.metrics()).map_err(Error::internal)?;
            app.service(Working { handlers: Mutex::new(handlers), metrics });
        }
        app.service(Housekeeping);
        Ok(())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn provide(app: &mut App, config: JobsConfig) {
    use runtime_migrate::MigrateApp;

    app.migrations(crate::migrations::SET);
    let clock = app.shared_clock();
    app.services().singleton(JOBS, (runtime_db::DB,), move |(db,): (Arc<runtime_db::Database>,)| {
        let store = crate::SqlStore::new((*db).clone()).with_ageing(config.ageing);
        let jobs = Jobs::new(store, config.clone(), clock.clone());
        async move { Ok::<_, Error>(jobs) }
    });
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn provide(app: &mut App, config: JobsConfig) {
    let clock = app.shared_clock();
    app.services().value(
        JOBS,
        Jobs::new(crate::MemoryStore::new(clock.clone()).with_ageing(config.ageing), config, clock),
    );
}

struct Working {
    handlers: Mutex<Handlers>,
    metrics: JobMetrics,
}

#[async_trait]
impl Service for Working {
    fn name(&self) -> &'static str {
        "jobs.worker"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let jobs = run.services.get(JOBS).await?;
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let worker = Worker::new((*jobs).clone(), handlers)?.with_metrics(self.metrics.clone());
        worker.run(run.stop.stopped()).await;
        Ok(())
    }
}

struct Housekeeping;

#[async_trait]
impl Service for Housekeeping {
    fn name(&self) -> &'static str {
        "jobs.housekeeping"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker, Mode::Scheduler]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let jobs = run.services.get(JOBS).await?;
        keep_house(&jobs, run.stop.stopped()).await;
        Ok(())
    }
}
