//! Wires the buses and the memory of answers into an `App`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode};
use runtime_telemetry::MetricsApp;

use crate::bus::{CommandBus, CommandBusBuilder, QueryBus, QueryBusBuilder};
use crate::idempotency::{IdempotencyStore, Idempotent};
use crate::middleware::Timed;

/// The app's memory of answered commands, for [`Idempotent`](crate::Idempotent).
pub const IDEMPOTENCY: Token<Arc<dyn IdempotencyStore>> = Token::new("work.idempotency");

/// How often old answers are forgotten.
const EVERY: Duration = Duration::from_mins(1);

/// The app's commands.
pub const COMMANDS: Token<CommandBus> = Token::new("work.commands");

/// The app's queries.
pub const QUERIES: Token<QueryBus> = Token::new("work.queries");

/// Handlers and middleware that modules add to the app's buses:
/// `app.contribute::<CqrsHandlers>().commands(|bus| bus.handle(..))`.
#[derive(Clone, Debug, Default)]
pub struct CqrsHandlers {
    commands: CommandBusBuilder,
    queries: QueryBusBuilder,
}

impl CqrsHandlers {
    /// Adds to the bus of commands.
    pub fn commands(&mut self, add: impl FnOnce(CommandBusBuilder) -> CommandBusBuilder) {
        self.commands = add(std::mem::take(&mut self.commands));
    }

    /// Adds to the bus of queries.
    pub fn queries(&mut self, add: impl FnOnce(QueryBusBuilder) -> QueryBusBuilder) {
        self.queries = add(std::mem::take(&mut self.queries));
    }
}

/// Provides [`COMMANDS`] and [`QUERIES`], made of what every module contributes, and [`IDEMPOTENCY`], kept in the app's
/// database with the feature `sqlite` or `postgres`, in memory without; and forgets what is past its time.
///
/// From the outside in, a call goes through what counts it, the contributed middleware in the order it was added, this
/// module's first, then what sees to idempotency keys and, with a database, to transactions. Two handlers for one type and a
/// type that is expected without a handler are refused when the app is built.
#[derive(Clone, Debug, Default)]
pub struct CqrsModule {
    own: CqrsHandlers,
}

impl CqrsModule {
    /// A module that adds nothing to the buses itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to the bus of commands.
    #[must_use]
    pub fn commands(mut self, add: impl FnOnce(CommandBusBuilder) -> CommandBusBuilder) -> Self {
        self.own.commands(add);
        self
    }

    /// Adds to the bus of queries.
    #[must_use]
    pub fn queries(mut self, add: impl FnOnce(QueryBusBuilder) -> QueryBusBuilder) -> Self {
        self.own.queries(add);
        self
    }
}

impl Module for CqrsModule {
    fn name(&self) -> &'static str {
        "cqrs"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        remember(app);
        app.service(Housekeeping);
        Ok(())
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let CqrsHandlers { commands, queries } = app.take_contribution();
        let counting = Timed::counting(app.shared_clock(), &app.metrics()).map_err(Error::internal)?;
        let commands =
            CommandBus::builder().layer(counting.clone()).merge(self.own.commands.clone()).merge(commands);
        let queries = QueryBus::builder().layer(counting).merge(self.own.queries.clone()).merge(queries);
        commands.check().map_err(|error| SetupError::module("cqrs", error.to_string()))?;
        let queries = queries.build().map_err(|error| SetupError::module("cqrs", error.to_string()))?;
        app.services().value(QUERIES, queries);
        provide(app, commands);
        Ok(())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn remember(app: &mut App) {
    use runtime_migrate::MigrateApp;

    app.migrations(crate::migrations::SET);
    app.services().singleton(
        IDEMPOTENCY,
        (runtime_db::DB,),
        |(db,): (Arc<runtime_db::Database>,)| async move {
            Ok::<_, Error>(Arc::new(crate::SqlIdempotency::new((*db).clone())) as Arc<dyn IdempotencyStore>)
        },
    );
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn provide(app: &mut App, commands: CommandBusBuilder) {
    type Needs = (Arc<runtime_db::Database>, Arc<Arc<dyn IdempotencyStore>>);

    app.services().singleton(COMMANDS, (runtime_db::DB, IDEMPOTENCY), move |(db, store): Needs| {
        let bus = commands
            .clone()
            .layer(Idempotent::new((*store).clone()))
            .layer(crate::Transactional::new((*db).clone()));
        async move { bus.build() }
    });
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn remember(app: &mut App) {
    let store: Arc<dyn IdempotencyStore> = Arc::new(crate::MemoryIdempotency::new(app.shared_clock()));
    app.services().value(IDEMPOTENCY, store);
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn provide(app: &mut App, commands: CommandBusBuilder) {
    app.services().singleton(COMMANDS, (IDEMPOTENCY,), move |(store,): (Arc<Arc<dyn IdempotencyStore>>,)| {
        let bus = commands.clone().layer(Idempotent::new((*store).clone()));
        async move { bus.build() }
    });
}

struct Housekeeping;

#[async_trait]
impl Service for Housekeeping {
    fn name(&self) -> &'static str {
        "cqrs.housekeeping"
    }

    fn modes(&self) -> &'static [Mode] {
        // Answers in memory are forgotten where they are made.
        if cfg!(any(feature = "sqlite", feature = "postgres")) {
            &[Mode::Worker, Mode::Scheduler]
        } else {
            &[Mode::All]
        }
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        const BATCH: u32 = 1000;
        let store = run.services.get(IDEMPOTENCY).await?;
        loop {
            let pause = match store.prune(BATCH).await {
                Ok(count) if count >= u64::from(BATCH) => Duration::ZERO,
                Ok(_) => EVERY,
                Err(error) => {
                    tracing::warn!(error = %Error::from(error).report(), "old answers could not be forgotten");
                    EVERY
                }
            };
            if run.stop.until(run.clock.sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }
}
