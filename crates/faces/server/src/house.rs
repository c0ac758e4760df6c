//! The server, put together from its modules.

use std::path::PathBuf;
use std::sync::Arc;

use runtime_apikey::{API_KEYS, ApiKeyLayer, ApiKeyModule};
use runtime_audit::{AUDIT, AuditModule, FileWriter};
use runtime_client::{ClientModule, HTTP_CLIENT};
use runtime_cron::CronModule;
use runtime_db::{DB, DbConfig, DbModule};
use runtime_discovery::DiscoveryModule;
use runtime_events::{EVENT_LOG, EventsModule};
use runtime_health::{Check, DiskSpace, HealthApp, HealthModule, Outcome};
use runtime_http::{HttpApp, HttpModule, Phase};
use runtime_jobs::{Handlers, JobHandlers, JobsModule};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Config, ReloadModule};
use runtime_kernel::{Error, Mode};
use runtime_limits::LimitsModule;
use runtime_migrate::MigrateModule;
use runtime_outbox::OutboxModule;
use runtime_providers::ProvidersModule;
use runtime_ratelimit::RateLimitModule;
use runtime_redis::RedisModule;
use runtime_resilience::ResilienceModule;
use runtime_rollout::RolloutModule;
use runtime_saga::SagaModule;
use runtime_telemetry::{TelemetryGuard, TelemetryModule};
use runtime_tenancy::TenancyModule;
use runtime_workflow::WorkflowModule;

use crate::api;
use crate::rollout_record::Moves;
use crate::settings::ServerConfig;
use crate::{event_publish, http_request, maintenance, record, relays, standing};

/// Every module of the server, in the order they are wired in.
pub(crate) fn app(
    config: Config,
    mode: Option<Mode>,
    guard: Option<Arc<TelemetryGuard>>,
) -> Result<App, SetupError> {
    Ok(modules(config, mode, guard)?.with(edge()))
}

/// The same with one more module, wired in just before the HTTP server takes what the others contribute.
pub(crate) fn app_with(config: Config, mode: Option<Mode>, module: impl Module) -> Result<App, SetupError> {
    Ok(modules(config, mode, None)?.with(module).with(edge()))
}

fn edge() -> HttpModule {
    HttpModule::new("runtime", env!("CARGO_PKG_VERSION"))
}

fn modules(
    config: Config,
    mode: Option<Mode>,
    guard: Option<Arc<TelemetryGuard>>,
) -> Result<App, SetupError> {
    let server: ServerConfig = config.section()?;
    let db: DbConfig = config.section()?;
    let embedded = db.url.is_empty();
    let mut audit = AuditModule::new();
    if embedded {
        let folder = &server.data_dir;
        std::fs::create_dir_all(folder).map_err(|error| {
            SetupError::module("server", format!("cannot make {}: {error}", folder.display()))
        })?;
        audit = audit.default_writer(FileWriter::new(folder.join("audit.jsonl")));
    }
    let app = App::new(config);
    let app = mode.into_iter().fold(app, App::mode);
    let told = record::Told::default();
    let (on_change, moves) = Moves::new();
    let telemetry = guard.map_or_else(TelemetryModule::new, TelemetryModule::with);
    Ok(app
        .with(telemetry)
        .with(ReloadModule::default())
        .with(DbModule::new().default_url(server.database_url()))
        .with(MigrateModule::new())
        .with(audit)
        .with(DiscoveryModule)
        .with(ClientModule)
        .with(ResilienceModule)
        .with(HealthModule)
        .with(RedisModule)
        .with(ApiKeyModule::new().hook(record::refusals(&told)))
        .with(TenancyModule)
        .with(LimitsModule)
        .with(RolloutModule::new().hook(on_change))
        .with(RateLimitModule)
        .with(ProvidersModule)
        .with(JobsModule::new())
        .with(CronModule::new())
        .with(EventsModule::new())
        .with(OutboxModule::new())
        .with(SagaModule::new())
        .with(WorkflowModule::new())
        .with(ServerModule { disk: embedded.then_some(server.data_dir), told, moves }))
}

/// What the server adds to its modules: the routes, the built-in kinds, the first key.
struct ServerModule {
    /// The folder whose disk is watched.
    disk: Option<PathBuf>,
    /// Filled once the app starts, for the refusals of API keys.
    told: record::Told,
    /// Puts on record what rollouts do by themselves.
    moves: Moves,
}

impl Module for ServerModule {
    fn name(&self) -> &'static str {
        "server"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: ServerConfig = app.section()?;
        app.health_check_with(
            "database",
            |check| check,
            |container| async move {
                let answer = async { container.get(DB).await?.ping().await.map_err(Error::from) };
                Outcome::from(answer.await)
            },
        );

        if let Some(folder) = &self.disk {
            app.health_check(Check::new("disk", DiskSpace::new(folder)));
        }
        let told = Arc::clone(&self.told);
        app.on_start("audit", |container| async move {
            let _ = told.set(container.get(AUDIT).await?);
            Ok::<_, Error>(())
        });

        app.service(self.moves.clone());
        standing::checks(app);
        let started = maintenance::Started::default();
        let filled = Arc::clone(&started);
        app.on_start("container", move |container| {
            let _ = filled.set(container);
            async { Ok::<_, Error>(()) }
        });
        app.contribute::<JobHandlers>().0.merge(built_in(&started));
        maintenance::register(app, &config.maintenance, &started)?;
        relays::register(app, &config.relays)?;

        if app.running_mode().includes(Mode::Api) {
            // Built before the layer below asks for it.
            app.on_start("api keys", |container| async move {
                let keys = container.get(API_KEYS).await?;
                if let Some(first) = keys.ensure_admin().await? {
                    crate::banner::first_key(first.expose());
                    record::first_key(&container, first.key.id).await?;
                }
                Ok(())
            });
        }
        app.on_start("database", |container| async move {
            container.get(DB).await?.ping().await.map_err(Error::from)
        });
        app.layer(Phase::Identify, "api key", |router, container| match container.peek(API_KEYS) {
            Some(keys) => router.layer(ApiKeyLayer::new(keys.authenticator().clone())),
            None => router,
        });
        crate::alerts::follow(app)?;
        app.on_listening(crate::banner::listening);
        api::routes(app)
    }
}

/// The kinds of jobs that need no code of a user.
fn built_in(started: &maintenance::Started) -> Handlers {
    let container = |started: &maintenance::Started| {
        started.get().cloned().ok_or_else(|| Error::internal("a job ran before the app had started"))
    };
    let (calls, publishes) = (Arc::clone(started), Arc::clone(started));
    Handlers::new()
        .handle_value(http_request::KIND, move |job, payload| {
            let container = container(&calls);
            async move { http_request::run(&*container?.get(HTTP_CLIENT).await?, job, payload).await }
        })
        .handle_value(event_publish::KIND, move |job, payload| {
            let container = container(&publishes);
            async move {
                let log = container?.get(EVENT_LOG).await?;
                event_publish::run(&**log, &job.context, &job.id.to_string(), payload).await
            }
        })
}
