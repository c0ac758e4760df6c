//! Wires events into an `App`.

use std::sync::Arc;

use async_trait::async_trait;
use runtime_kernel::app::{App, Maintenance, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode, SharedClock};
use runtime_telemetry::MetricsApp;

use crate::bus::{Bus, TopicOptions};
use crate::config::EventsConfig;
use crate::consumer::{Consumer, keep_house, measure};
use crate::incoming::Handler;
use crate::log::{EventLog, SubscriptionSpec};
use crate::metrics::EventMetrics;

/// The app's event log.
pub const EVENT_LOG: Token<Arc<dyn EventLog>> = Token::new("work.events");

/// The app's in-process bus.
pub const BUS: Token<Bus> = Token::new("work.bus");

/// The app's event log as what it is, for publishing inside transactions.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub const SQL_LOG: Token<crate::SqlLog> = Token::new("work.events.sql");

/// The maintenance task that forgets old events.
const TASK: &str = "events";

/// Handlers other modules add: `app.contribute::<EventHandlers>().subscribe(..)`.
#[derive(Debug, Default)]
pub struct EventHandlers(Vec<(SubscriptionSpec, Handler)>);

impl EventHandlers {
    /// Handles a durable subscription.
    pub fn subscribe(&mut self, spec: SubscriptionSpec, handler: Handler) {
        self.0.push((spec, handler));
    }
}

/// Reads the section `events`, provides [`EVENT_LOG`] and [`BUS`], and runs each subscription's consumer in the modes
/// `worker` and `all`. Old events are forgotten by the maintenance task `events` where somebody runs it, and by the module
/// itself where nobody does.
///
/// The log lives in the app's database with the feature `sqlite` or `postgres`, in memory without.
#[derive(Debug, Default)]
pub struct EventsModule {
    handlers: Vec<(SubscriptionSpec, Handler)>,
}

impl EventsModule {
    /// A module without handlers: it publishes, and runs what others contribute.
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles a durable subscription.
    #[must_use]
    pub fn subscribe(mut self, spec: SubscriptionSpec, handler: Handler) -> Self {
        self.handlers.push((spec, handler));
        self
    }
}

impl Module for EventsModule {
    fn name(&self) -> &'static str {
        "events"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: EventsConfig = app.section()?;
        app.contribute::<EventHandlers>().0.extend(self.handlers.iter().cloned());
        let mut options = TopicOptions::default();
        options.capacity = usize::try_from(config.bus_capacity).unwrap_or(options.capacity);
        let bus = Bus::new(options, app.shared_clock());
        app.services().value(BUS, bus);
        provide(app, &config)?;
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: EventsConfig = app.section()?;
        let metrics = EventMetrics::new(&app.metrics()).map_err(Error::internal)?;
        let mut names = std::collections::HashSet::new();
        for (spec, handler) in app.take_contribution::<EventHandlers>().0 {
            if !names.insert(spec.name().to_owned()) {
                let problem = format!("two handlers subscribe as `{}`", spec.name());
                return Err(SetupError::module("events", problem));
            }
            let (config, metrics) = (config.clone(), metrics.clone());
            app.service(Consuming { spec, handler, config, metrics });
        }
        let prunes = !app.contribute::<Maintenance>().is_taken(TASK);
        app.service(Housekeeping { config, metrics, prunes });
        Ok(())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn provide(app: &mut App, config: &EventsConfig) -> Result<(), SetupError> {
    use runtime_kernel::app::MaintenanceTask;
    use runtime_migrate::MigrateApp;

    app.migrations(crate::migrations::SET);
    let metrics = EventMetrics::new(&app.metrics()).map_err(Error::internal)?;
    app.services().singleton(SQL_LOG, (runtime_db::DB,), move |(db,): (Arc<runtime_db::Database>,)| {
        let log = crate::SqlLog::new((*db).clone()).with_metrics(metrics.clone());
        std::future::ready(Ok::<_, Error>(log))
    });
    app.services().singleton(EVENT_LOG, (SQL_LOG,), |(log,): (Arc<crate::SqlLog>,)| async move {
        Ok::<_, Error>(log as Arc<dyn EventLog>)
    });
    if let Some(keep) = config.keep {
        app.contribute::<Maintenance>().add(MaintenanceTask::new(
            TASK,
            "@every 10m",
            move |services| async move {
                let log = services.get(EVENT_LOG).await?;
                Ok(crate::consumer::forget(&**log, keep).await?)
            },
        ));
    }
    Ok(())
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn provide(app: &mut App, _: &EventsConfig) -> Result<(), SetupError> {
    let log: Arc<dyn EventLog> = Arc::new(crate::MemoryLog::new(app.shared_clock()));
    app.services().value(EVENT_LOG, log);
    Ok(())
}

struct Consuming {
    spec: SubscriptionSpec,
    handler: Handler,
    config: EventsConfig,
    metrics: EventMetrics,
}

#[async_trait]
impl Service for Consuming {
    fn name(&self) -> &'static str {
        "events.consumer"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let log = run.services.get(EVENT_LOG).await?;
        let consumer = Consumer::new((*log).clone(), self.spec.clone(), self.config.clone(), run.clock)?;
        Ok(consumer.with_metrics(self.metrics.clone()).run(run.stop.stopped(), self.handler.clone()).await?)
    }
}

struct Housekeeping {
    config: EventsConfig,
    metrics: EventMetrics,
    prunes: bool,
}

#[async_trait]
impl Service for Housekeeping {
    fn name(&self) -> &'static str {
        "events.housekeeping"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker, Mode::Scheduler]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let log = run.services.get(EVENT_LOG).await?;
        let clock: SharedClock = run.clock;
        let stop = run.stop.stopped();
        let measuring = measure(&**log, &self.metrics, self.config.housekeeping, &clock);
        let pruning = async {
            if self.prunes {
                keep_house(&**log, &self.config, &clock, std::future::pending()).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = measuring => {}
            () = pruning => {}
        }
        Ok(())
    }
}
