//! The server, put together from its modules.

use std::sync::Arc;

use runtime_apikey::{API_KEYS, ApiKeyLayer, ApiKeyModule};
use runtime_client::{ClientModule, HTTP_CLIENT};
use runtime_db::{DB, DbConfig, DbModule};
use runtime_health::{HealthApp, HealthModule, Outcome};
use runtime_http::{HttpApp, HttpModule, Phase};
use runtime_jobs::{Handlers, JobHandlers, JobsModule};
use runtime_kernel::app::{App, Module, SetupError};
use runtime_kernel::config::{Config, ReloadModule};
use runtime_kernel::container::Container;
use runtime_kernel::{Error, Mode};
use runtime_migrate::{MigrateApp, MigrateModule, Migration, MigrationSet};
use runtime_telemetry::{TelemetryGuard, TelemetryModule};
use runtime_tenancy::TenancyModule;

use crate::api;
use crate::http_request;
use crate::settings::ServerConfig;

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
    if db.url.is_empty() {
        let folder = &server.data_dir;
        std::fs::create_dir_all(folder).map_err(|error| {
            SetupError::module("server", format!("cannot make {}: {error}", folder.display()))
        })?;
    }
    let app = App::new(config);
    let app = mode.into_iter().fold(app, App::mode);
    let telemetry = guard.map_or_else(TelemetryModule::new, TelemetryModule::with);
    Ok(app
        .with(telemetry)
        .with(ReloadModule::default())
        .with(DbModule::new().default_url(server.database_url()))
        .with(MigrateModule::new())
        .with(ClientModule)
        .with(HealthModule)
        .with(ApiKeyModule::new())
        .with(TenancyModule)
        .with(JobsModule::new())
        .with(ServerModule))
}

/// What the server adds to its modules: the routes, the built-in kinds, the first key.
struct ServerModule;

impl Module for ServerModule {
    fn name(&self) -> &'static str {
        "server"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let _: ServerConfig = app.section()?;
        app.migrations(API_KEY_TABLES);
        app.health_check_with(
            "database",
            |check| check,
            |container| async move {
                let answer = async { container.get(DB).await?.ping().await.map_err(Error::from) };
                Outcome::from(answer.await)
            },
        );

        let slot: Arc<std::sync::OnceLock<Container>> = Arc::default();
        let filled = Arc::clone(&slot);
        app.on_start("container", move |container| {
            let _ = filled.set(container);
            async { Ok::<_, Error>(()) }
        });
        let handlers = Handlers::new().handle_value(http_request::KIND, move |job, payload| {
            let container = slot.get().cloned();
            async move {
                let container =
                    container.ok_or_else(|| Error::internal("a job ran before the app had started"))?;
                http_request::run(&*container.get(HTTP_CLIENT).await?, job, payload).await
            }
        });
        app.contribute::<JobHandlers>().0.merge(handlers);

        if app.running_mode().includes(Mode::Api) {
            // Built before the layer below asks for it.
            app.on_start("api keys", |container| async move {
                let keys = container.get(API_KEYS).await?;
                if let Some(first) = keys.ensure_admin().await? {
                    crate::banner::first_key(first.expose());
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
        app.on_listening(crate::banner::listening);
        api::routes(app);
        Ok(())
    }
}

/// The key store ships its tables as numbered statements.
const API_KEY_TABLES: MigrationSet = MigrationSet { module: "apikey", migrations: &[API_KEYS_1] };

const API_KEYS_1: Migration = {
    use runtime_apikey::migrations::steps;
    use runtime_db::Dialect;
    match (steps(Dialect::Sqlite), steps(Dialect::Postgres)) {
        ([(version, name, sqlite)], [(_, _, postgres)]) => Migration::new(*version, name, sqlite, postgres),
        _ => panic!("runtime-apikey has gained a step that is missing here"),
    }
};
