//! Puts rollouts into an app.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::config::{Invalid, Section};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, SharedClock};
use runtime_telemetry::{Counter, Family, Gauge, MetricsApp, keys};

use crate::config::RolloutConfig;
use crate::control::{Change, Rollouts};
use crate::error::RolloutError;
use crate::state::{Phase, WHOLE};
use crate::store::RolloutStore;

/// The app's rollouts.
pub const ROLLOUTS: Token<Rollouts> = Token::new("rollout.rollouts");

/// How often what others have done is read, and what was seen here is told.
const EVERY: Duration = Duration::from_secs(1);

impl Section for RolloutConfig {
    const PATH: &'static str = "rollout";

    fn validate(&self) -> Result<(), Invalid> {
        self.check().map_err(|error| match error {
            RolloutError::Config { key, message } => Invalid::new(key, message),
            other => Invalid::new("", other.to_string()),
        })
    }
}

/// Told of every change this process makes.
type Told = Arc<dyn Fn(&Change) + Send + Sync>;

/// Reads the section `rollout`, provides [`ROLLOUTS`], kept in the app's database (in memory without one), and looks
/// after them once a second. Changes are logged and counted.
#[derive(Clone, Default)]
pub struct RolloutModule {
    told: Vec<Told>,
}

impl std::fmt::Debug for RolloutModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RolloutModule").finish_non_exhaustive()
    }
}

impl RolloutModule {
    /// As the configuration says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `told` after each change this process makes, ordered or by itself.
    #[must_use]
    pub fn hook(mut self, told: impl Fn(&Change) + Send + Sync + 'static) -> Self {
        self.told.push(Arc::new(told));
        self
    }
}

#[derive(Clone)]
struct Numbers {
    weight: Family<Gauge>,
    changes: Family<Counter>,
}

impl Module for RolloutModule {
    fn name(&self) -> &'static str {
        "rollout"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        runtime_migrate::MigrateApp::migrations(app, crate::migrations::SET);
        app.section::<RolloutConfig>().map(drop)
    }

    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let config: RolloutConfig = app.section()?;
        let fault = |error: &dyn std::fmt::Display| SetupError::Module {
            module: "rollout",
            message: error.to_string(),
        };
        let registry = app.metrics();
        let weight = registry.gauge(keys::ROLLOUT_WEIGHT, "The canary's share of the requests.");
        let changes = registry.counter(keys::ROLLOUT_CHANGES_TOTAL, "Changes of a rollout's phase.");
        let numbers = Numbers {
            weight: weight.map_err(|error| fault(&error))?,
            changes: changes.map_err(|error| fault(&error))?,
        };
        let (told, counted) = (self.told.clone(), numbers.clone());
        let observe = move |change: &Change| {
            log(change);
            let to = phase(change.after.phase);
            counted.changes.with(&[("rollout", change.after.name.as_str()), ("to", to)]).inc();
            for told in &told {
                told(change);
            }
        };
        let clock = app.shared_clock();
        let empty = config.routes.is_empty();
        provide(app, config, &clock, observe)?;
        if !empty {
            app.on_start("rollouts", |container| async move {
                // What is known before the first request; a database that is away is asked again soon.
                if let Err(error) = container.get(ROLLOUTS).await?.refresh().await {
                    tracing::warn!(error = %error, "rollouts cannot be read");
                }
                Ok::<_, Error>(())
            });
            app.service(Look { numbers });
        }
        Ok(())
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Promoted => "promoted",
        Phase::RolledBack => "rolled_back",
        Phase::Prepared { .. } => "prepared",
        Phase::Draining { .. } => "draining",
    }
}

fn log(change: &Change) {
    let Change { before, after, by_itself } = change;
    let (name, reason, weight) = (&after.name, &after.reason, after.weight);
    let (from, to) = (phase(before.phase), phase(after.phase));
    if after.phase == Phase::RolledBack {
        tracing::warn!(rollout = %name, from, to, weight, by_itself, %reason, "a rollout was rolled back");
    } else {
        tracing::info!(rollout = %name, from, to, weight, by_itself, %reason, "a rollout has changed");
    }
}

/// In the app's database if it has one. Whether it has is known once every module has registered.
fn provide(
    app: &mut App,
    config: RolloutConfig,
    clock: &SharedClock,
    observe: impl Fn(&Change) + Send + Sync + Clone + 'static,
) -> Result<(), SetupError> {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if app.services().contains(runtime_db::DB) {
        let clock = Arc::clone(clock);
        app.services().singleton(ROLLOUTS, (runtime_db::DB,), move |(db,)| {
            let store: Arc<dyn RolloutStore> = Arc::new(crate::SqlRollouts::new((*db).clone()));
            let made = Rollouts::new(store, config.routes.clone(), Arc::clone(&clock), observe.clone());
            std::future::ready(made.map(Arc::new).map_err(Error::from))
        });
        return Ok(());
    }
    let store: Arc<dyn RolloutStore> = Arc::new(crate::MemoryRollouts::new());
    let made = Rollouts::new(store, config.routes, Arc::clone(clock), observe).map_err(Error::from)?;
    app.services().value(ROLLOUTS, Arc::new(made));
    Ok(())
}

struct Look {
    numbers: Numbers,
}

#[async_trait]
impl Service for Look {
    fn name(&self) -> &'static str {
        "rollouts"
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let rollouts = run.services.get(ROLLOUTS).await?;
        let mut stop = std::pin::pin!(run.stop.stopped());
        let mut away = false;
        loop {
            let wait = run.clock.sleep(EVERY);
            let stopped = std::future::poll_fn(|cx| stop.as_mut().poll(cx).map(|()| ()));
            tokio::select! {
                () = stopped => break,
                () = wait => {}
            }
            let seen = rollouts.refresh().await;
            if let Err(error) = &seen
                && !away
            {
                tracing::warn!(error = %error, "rollouts cannot be read; the last known weights stay");
            }
            away = seen.is_err();
            for name in rollouts.names() {
                if let Ok(rollout) = rollouts.current(name) {
                    let share = f64::from(rollout.weight) / f64::from(WHOLE);
                    self.numbers.weight.with(&[("rollout", name)]).set(share);
                }
            }
        }
        // What was seen since the last time.
        let _ = rollouts.refresh().await;
        Ok(())
    }
}
