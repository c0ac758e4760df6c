//! Runs a check from the command line; the same program is its workers.

use std::process::ExitCode;

use runtime_workcheck::{Settings, WorkcheckError, WorkerSettings, run, work};

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn start() -> Result<ExitCode, WorkcheckError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = args.split_first()
        && first == "worker"
    {
        work(&WorkerSettings::parse(rest)?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::parse(std::env::current_exe()?, &args)?;
    println!("seed {} for {} s", settings.seed, settings.duration.as_secs());
    let outcome = run(&settings).await?;
    println!("{outcome}");
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
