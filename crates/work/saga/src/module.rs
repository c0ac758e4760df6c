//! Wires sagas into an `App`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{App, Maintenance, MaintenanceTask, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode, SharedClock};
use runtime_telemetry::MetricsApp;

use crate::config::SagaConfig;
use crate::definition::{Definition, Definitions};
use crate::metrics::SagaMetrics;
use crate::sagas::Sagas;
use crate::store::SagaStore;
use crate::worker::{BATCH, Worker};

/// The app's sagas.
pub const SAGAS: Token<Sagas> = Token::new("work.sagas");

/// The maintenance task that forgets sagas that are over.
const TASK: &str = "sagas";

/// Types other modules add: `app.contribute::<SagaDefinitions>().0.push(..)`.
#[derive(Debug, Default)]
pub struct SagaDefinitions(pub Vec<Definition>);

/// Reads the section `saga`, provides [`SAGAS`], kept in the app's database (in memory without one), and runs a worker in
/// the modes `worker` and `all`. Sagas that are over are forgotten by the maintenance task `sagas` where somebody runs it, and
/// by the workers where nobody does.
#[derive(Debug, Default)]
pub struct SagaModule {
    definitions: Vec<Definition>,
}

impl SagaModule {
    /// A module without types of its own: it runs what others contribute.
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows a type, in one version.
    #[must_use]
    pub fn saga(mut self, definition: Definition) -> Self {
        self.definitions.push(definition);
        self
    }
}

impl Module for SagaModule {
    fn name(&self) -> &'static str {
        "saga"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        runtime_migrate::MigrateApp::migrations(app, crate::migrations::SET);
        app.contribute::<SagaDefinitions>().0.extend(self.definitions.iter().cloned());
        let config: SagaConfig = app.section()?;
        if let Some(keep) = config.keep {
            app.contribute::<Maintenance>().add(MaintenanceTask::new(
                TASK,
                "@every 10m",
                move |services| async move { forget(&**services.get(SAGAS).await?.store(), keep).await },
            ));
        }
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: SagaConfig = app.section()?;
        let mut definitions = Definitions::new();
        for definition in app.take_contribution::<SagaDefinitions>().0 {
            definitions.add(definition).map_err(|error| SetupError::module("saga", error))?;
        }
        let metrics = SagaMetrics::new(&app.metrics()).map_err(Error::internal)?;
        let clock = app.shared_clock();
        let make = {
            let clock = Arc::clone(&clock);
            move |store: Arc<dyn SagaStore>| {
                Sagas::new(store, definitions.clone(), config.clone(), Arc::clone(&clock))
            }
        };
        provide(app, clock, make);
        let prunes = !app.contribute::<Maintenance>().is_taken(TASK);
        app.service(Working { metrics, prunes });
        Ok(())
    }
}

/// In the app's database if it has one. Whether it has is known once every module has registered.
fn provide(
    app: &mut App,
    clock: SharedClock,
    make: impl Fn(Arc<dyn SagaStore>) -> Sagas + Send + Sync + 'static,
) {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if app.services().contains(runtime_db::DB) {
        app.services().singleton(SAGAS, (runtime_db::DB,), move |(db,): (Arc<runtime_db::Database>,)| {
            let sagas = make(Arc::new(crate::SqlSagas::new((*db).clone())));
            async move { Ok::<_, Error>(sagas) }
        });
        return;
    }
    app.services().value(SAGAS, Arc::new(make(Arc::new(crate::MemorySagas::new(clock)))));
}

/// Forgets what was over so long ago, in many small steps; says how much.
async fn forget(store: &dyn SagaStore, keep: Duration) -> Result<u64, Error> {
    let mut forgotten = 0;
    loop {
        let count = store.prune(keep, BATCH).await?;
        forgotten += count;
        if count < u64::from(BATCH) {
            return Ok(forgotten);
        }
    }
}

struct Working {
    metrics: SagaMetrics,
    prunes: bool,
}

#[async_trait]
impl Service for Working {
    fn name(&self) -> &'static str {
        "saga.worker"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let sagas = run.services.get(SAGAS).await?;
        let worker = Worker::new((*sagas).clone())?.with_metrics(self.metrics.clone());
        let worker = if self.prunes { worker } else { worker.without_pruning() };
        worker.run(run.stop.stopped()).await;
        Ok(())
    }
}
