//! One file per command.

mod config;
mod doctor;
mod events;
mod jobs;
mod keys;
mod migrate;
mod outbox;
mod rollouts;
mod routes;
mod sagas;
mod schedules;
mod serve;
mod workflows;

use std::sync::Arc;

use clap::CommandFactory;
use runtime_db::{DbConfig, Migrate};
use runtime_kernel::app::{SetupError, exit_code};
use runtime_kernel::config::{Config, ConfigError};
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, Principal, Source, SystemClock, TenantContext};
use runtime_migrate::MIGRATOR;
use runtime_tenancy::TenancyConfig;
use serde_json::Value;

use crate::cli::{Cli, Command, Whose};
use crate::house;
use crate::output::Output;
use crate::settings;

/// Why a command failed, and the exit code that says so.
pub(crate) struct Failure {
    code: String,
    message: String,
    exit: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match exit_code(error.code()) {
            50 => 1,
            other => other,
        };
        Self { code: error.code().to_owned(), message: error.report(), exit }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = error.exit_code();
        Self { code: "config".to_owned(), message: error.to_string(), exit }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self { code: "bootstrap".to_owned(), message: error.to_string(), exit: error.exit_code() }
    }
}

/// What a command ends with: its exit code, or a failure.
pub(crate) type Done = Result<u8, Failure>;

/// Runs what was typed and says how the process ends.
pub(crate) async fn run(cli: Cli, output: Output) -> u8 {
    let Cli { global, command } = cli;
    let done = match command.unwrap_or(Command::Serve { mode: None }) {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "runtime", &mut std::io::stdout());
            Ok(0)
        }
        command => match settings::read(&global) {
            Err(error) => Err(error.into()),
            Ok(config) => dispatch(command, config, output).await,
        },
    };
    done.unwrap_or_else(|failure| {
        output.failure(&failure.code, &failure.message);
        failure.exit
    })
}

async fn dispatch(command: Command, config: Config, output: Output) -> Done {
    match command {
        Command::Serve { mode } => serve::run(config, mode).await,
        Command::Migrate { dry_run } => migrate::run(config, dry_run, output).await,
        Command::Config { action } => config::run(config, action, output),
        Command::Routes { stack } => routes::run(config, stack, output),
        Command::Keys { action } => keys::run(config, action, output).await,
        Command::Jobs { action } => jobs::run(config, action, output).await,
        Command::Schedules { action } => schedules::run(config, action, output).await,
        Command::Rollouts { action } => rollouts::run(config, action, output).await,
        Command::Events { whose, action } => events::run(config, &whose, action, output).await,
        Command::Outbox { action } => outbox::run(config, action, output).await,
        Command::Sagas { whose, action } => sagas::run(config, &whose, action, output).await,
        Command::Workflows { whose, action } => workflows::run(config, &whose, action, output).await,
        Command::Doctor => doctor::run(config, output).await,
        Command::Completions { .. } => Ok(0),
    }
}

/// The app's container, for a command that works on the database and serves nothing. Dispose of it when done.
fn bare_container(config: Config) -> Result<Container, Failure> {
    let built = house::app(config, None, None)?.build()?;
    Ok(built.container().clone())
}

/// The same, with the schema this version needs, unless the configuration leaves migrating to somebody else.
async fn container(config: Config) -> Result<Container, Failure> {
    let db: DbConfig = config.section()?;
    let container = bare_container(config)?;
    if db.migrate == Migrate::Auto {
        container.get(MIGRATOR).await?.run().await.map_err(Error::from)?;
    }
    Ok(container)
}

/// The command line's own context: the operator of the installation.
fn operator() -> Context {
    Context::new(Source::Cli, &SystemClock).with_principal(Arc::new(Principal::system("cli")))
}

/// The same where work belongs to a realm or a tenant: as the HTTP API has it.
fn operator_of(config: &Config, whose: &Whose) -> Result<Context, Failure> {
    let mut context = operator();
    if !whose.own {
        let realm = config.section::<TenancyConfig>()?.default_realm;
        let of = match &whose.tenant {
            Some(tenant) => TenantContext::tenant(realm, tenant.clone()),
            None => TenantContext::realm(realm),
        };
        context.tenant = Some(Arc::new(of));
    }
    Ok(context)
}

/// Does work of the realm, a tenant or the service itself on the database.
async fn work_of(
    config: Config,
    whose: &Whose,
    work: impl AsyncFnOnce(&Container, &Context) -> Result<(), Failure>,
) -> Done {
    let context = operator_of(&config, whose)?;
    let container = container(config).await?;
    let done = work(&container, &context).await;
    container.dispose().await;
    done.map(|()| 0)
}

/// What was typed as JSON.
fn json_of(what: &str, text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("the {what} is not JSON: {error}")))
}

/// A value whose names are those of JSON, such as a status.
fn named<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Error> {
    serde_json::from_value(Value::from(text)).map_err(|_| Error::invalid(format!("`{text}` is not a {what}")))
}

/// A page as long as the command line may ask for.
fn page(limit: u32) -> Result<u32, Error> {
    let fits = (1..=1000).contains(&limit);
    fits.then_some(limit).ok_or_else(|| Error::invalid("`--limit` must be 1 to 1000"))
}
