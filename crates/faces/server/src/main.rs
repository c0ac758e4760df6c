//! The ready-made server and its command line.

mod alerts;
mod api;
mod banner;
mod cli;
mod commands;
mod event_publish;
mod house;
mod http_request;
mod kinds;
mod maintenance;
mod output;
mod record;
mod relays;
mod rollout_record;
mod settings;
mod standing;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.failure("bootstrap", &format!("the async runtime could not be started: {error}"));
            return ExitCode::from(50);
        }
    };
    let code = runtime.block_on(commands::run(cli, output));
    // What still blocks a thread at the end must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}
