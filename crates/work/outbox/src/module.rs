//! Wires outbox and inbox into an `App`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use runtime_events::Publisher;
use runtime_kernel::app::{App, Maintenance, Module, Run, Service, SetupError};
use runtime_kernel::container::{Container, Token};
use runtime_kernel::{Error, Mode};
use runtime_telemetry::MetricsApp;

use crate::config::OutboxConfig;
use crate::inbox::InboxStore;
use crate::metrics::OutboxMetrics;
use crate::relay::{Relay, keep_house, measure};
use crate::store::{Channel, OutboxStore};

/// The app's outbox, as relays and operators see it.
pub const OUTBOX: Token<Arc<dyn OutboxStore>> = Token::new("work.outbox");

/// The app's inbox.
pub const INBOX: Token<Arc<dyn InboxStore>> = Token::new("work.inbox");

/// The app's outbox as what it is, for adding inside transactions.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub const SQL_OUTBOX: Token<crate::SqlOutbox> = Token::new("work.outbox.sql");

/// The app's inbox as what it is, for remembering inside transactions.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub const SQL_INBOX: Token<crate::SqlInbox> = Token::new("work.inbox.sql");

/// The maintenance tasks that forget sent messages and what was seen.
const TASKS: [&str; 2] = ["outbox", "inbox"];

type Make = dyn Fn(Container) -> BoxFuture<'static, Result<Arc<dyn Publisher>, Error>> + Send + Sync;

/// Sinks other modules add: `app.contribute::<OutboxSinks>().sink(..)`.
#[derive(Clone, Default)]
pub struct OutboxSinks(Vec<(Channel, Arc<Make>)>);

impl OutboxSinks {
    /// Empties a channel into a sink, which is made from the app's services when the relay starts.
    pub fn sink<F, W>(&mut self, channel: Channel, make: F)
    where
        F: Fn(Container) -> W + Send + Sync + 'static,
        W: Future<Output = Result<Arc<dyn Publisher>, Error>> + Send + 'static,
    {
        self.0.push((channel, Arc::new(move |services| Box::pin(make(services)))));
    }
}

impl fmt::Debug for OutboxSinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(channel, _)| channel)).finish()
    }
}

/// Reads the section `outbox`, provides [`OUTBOX`] and [`INBOX`], and runs a relay for each sink in the modes `worker` and
/// `all`. Old rows are forgotten by the maintenance tasks `outbox` and `inbox` where somebody runs them, and by the module
/// itself where nobody does.
///
/// Both live in the app's database with the feature `sqlite` or `postgres`, in memory without.
#[derive(Debug, Default)]
pub struct OutboxModule {
    sinks: OutboxSinks,
}

impl OutboxModule {
    /// A module without sinks: messages are kept, and sent by what others contribute.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties a channel into a sink, which is made from the app's services when the relay starts.
    #[must_use]
    pub fn sink<F, W>(mut self, channel: Channel, make: F) -> Self
    where
        F: Fn(Container) -> W + Send + Sync + 'static,
        W: Future<Output = Result<Arc<dyn Publisher>, Error>> + Send + 'static,
    {
        self.sinks.sink(channel, make);
        self
    }
}

impl Module for OutboxModule {
    fn name(&self) -> &'static str {
        "outbox"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: OutboxConfig = app.section()?;
        app.contribute::<OutboxSinks>().0.extend(self.sinks.0.iter().cloned());
        provide(app, &config);
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: OutboxConfig = app.section()?;
        let metrics = OutboxMetrics::new(&app.metrics()).map_err(Error::internal)?;
        let mut channels = std::collections::HashSet::new();
        for (channel, make) in app.take_contribution::<OutboxSinks>().0 {
            if !channels.insert(channel.clone()) {
                return Err(SetupError::module("outbox", format!("channel `{channel}` has two sinks")));
            }
            let (config, metrics) = (config.clone(), metrics.clone());
            app.service(Relaying { channel, make, config, metrics });
        }
        let prunes = !app.contribute::<Maintenance>().is_taken(TASKS[0]);
        app.service(Housekeeping { config, metrics, prunes });
        Ok(())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn provide(app: &mut App, config: &OutboxConfig) {
    use runtime_db::{DB, Database};
    use runtime_kernel::app::MaintenanceTask;
    use runtime_migrate::MigrateApp;

    use crate::relay::forget;
    use crate::{SqlInbox, SqlOutbox};

    const EVERY: &str = "@every 10m";

    app.migrations(crate::migrations::SET);
    let (max_message, keep) = (config.max_message, !config.keep_sent.is_zero());
    app.services().singleton(SQL_OUTBOX, (DB,), move |(db,): (Arc<Database>,)| async move {
        let outbox = SqlOutbox::new((*db).clone());
        Ok::<_, Error>(outbox.with_max_message(max_message).with_kept_sent(keep))
    });
    app.services().singleton(OUTBOX, (SQL_OUTBOX,), |(outbox,): (Arc<SqlOutbox>,)| async move {
        Ok::<_, Error>(outbox as Arc<dyn OutboxStore>)
    });
    app.services().singleton(SQL_INBOX, (DB,), |(db,): (Arc<Database>,)| async move {
        Ok::<_, Error>(SqlInbox::new((*db).clone()))
    });
    app.services().singleton(INBOX, (SQL_INBOX,), |(inbox,): (Arc<SqlInbox>,)| async move {
        Ok::<_, Error>(inbox as Arc<dyn InboxStore>)
    });
    let ([sent, seen], (keep_sent, keep_seen)) = (TASKS, (config.keep_sent, config.keep_seen));
    let maintenance = app.contribute::<Maintenance>();
    maintenance.add(MaintenanceTask::new(sent, EVERY, move |services| async move {
        let outbox = services.get(OUTBOX).await?;
        Ok(forget(|most| outbox.prune(keep_sent, most)).await?)
    }));
    maintenance.add(MaintenanceTask::new(seen, EVERY, move |services| async move {
        let inbox = services.get(INBOX).await?;
        Ok(forget(|most| inbox.prune(keep_seen, most)).await?)
    }));
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn provide(app: &mut App, config: &OutboxConfig) {
    let clock = app.shared_clock();
    let outbox = crate::MemoryOutbox::new(clock.clone()).with_max_message(config.max_message);
    let outbox: Arc<dyn OutboxStore> = Arc::new(outbox);
    let inbox: Arc<dyn InboxStore> = Arc::new(crate::MemoryInbox::new(clock));
    app.services().value(OUTBOX, outbox);
    app.services().value(INBOX, inbox);
}

struct Relaying {
    channel: Channel,
    make: Arc<Make>,
    config: OutboxConfig,
    metrics: OutboxMetrics,
}

#[async_trait]
impl Service for Relaying {
    fn name(&self) -> &'static str {
        "outbox.relay"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let outbox = run.services.get(OUTBOX).await?;
        let sink = (self.make)(run.services.clone()).await?;
        let (channel, config) = (self.channel.clone(), self.config.clone());
        let relay = Relay::new((*outbox).clone(), channel, sink, config, run.clock)?;
        relay.with_metrics(self.metrics.clone()).run(run.stop.stopped()).await;
        Ok(())
    }
}

struct Housekeeping {
    config: OutboxConfig,
    metrics: OutboxMetrics,
    prunes: bool,
}

#[async_trait]
impl Service for Housekeeping {
    fn name(&self) -> &'static str {
        "outbox.housekeeping"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Worker, Mode::Scheduler]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let (outbox, inbox) = (run.services.get(OUTBOX).await?, run.services.get(INBOX).await?);
        let stop = run.stop.stopped();
        if self.prunes {
            keep_house(&**outbox, &**inbox, &self.config, &self.metrics, &run.clock, stop).await;
            return Ok(());
        }
        let measuring = async {
            loop {
                measure(&**outbox, &self.metrics).await;
                run.clock.sleep(self.config.housekeeping).await;
            }
        };
        tokio::select! {
            () = stop => Ok(()),
            () = measuring => Ok(()),
        }
    }
}
