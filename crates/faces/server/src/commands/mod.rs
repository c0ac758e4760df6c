//! One file per command.

mod config;
mod doctor;
mod jobs;
mod keys;
mod migrate;
mod rollouts;
mod routes;
mod schedules;
mod serve;

use std::sync::Arc;

use clap::CommandFactory;
use runtime_db::{DbConfig, Migrate};
use runtime_kernel::app::{SetupError, exit_code};
use runtime_kernel::config::{Config, ConfigError};
use runtime_kernel::container::Container;
use runtime_kernel::{Context, Error, Principal, Source, SystemClock};
use runtime_migrate::MIGRATOR;

use crate::cli::{Cli, Command};
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
