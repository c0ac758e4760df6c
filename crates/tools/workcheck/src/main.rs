//! Runs a check from the command line; the same program is its workers.

use std::process::ExitCode;

use runtime_workcheck::{Role, Settings, WorkcheckError, WorkerSettings, fleet, outbox, run, serve, work};

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
    let program = std::env::current_exe()?;
    let (first, rest) = args.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let (text, clean) = match first {
        "worker" => {
            work(&WorkerSettings::parse(rest)?).await?;
            return Ok(ExitCode::SUCCESS);
        }
        "member" => {
            serve(Role::parse(rest)?).await?;
            return Ok(ExitCode::SUCCESS);
        }
        "outbox" => {
            let settings = outbox::OutboxSettings::parse(program, rest)?;
            println!("seed {} for {} s", settings.seed, settings.duration.as_secs());
            let outcome = outbox::run(&settings).await?;
            (outcome.to_string(), outcome.violations.is_empty())
        }
        "sagas" | "workflows" | "ticks" => {
            let settings = fleet::FleetSettings::parse(program, rest)?;
            println!("seed {}, {first}", settings.seed);
            let outcome = match first {
                "sagas" => fleet::sagas(&settings).await?,
                "ticks" => fleet::ticks(&settings).await?,
                _ => fleet::workflows(&settings).await?,
            };
            (outcome.to_string(), outcome.violations.is_empty())
        }
        _ => {
            let settings = Settings::parse(program, &args)?;
            println!("seed {} for {} s", settings.seed, settings.duration.as_secs());
            let outcome = run(&settings).await?;
            (outcome.to_string(), outcome.violations.is_empty())
        }
    };
    println!("{text}");
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
