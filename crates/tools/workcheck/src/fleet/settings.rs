//! How many, on how many processes, and how badly.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::WorkcheckError;
use crate::settings::number;

/// Processes broken on purpose, so that the check is seen to find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// As it should be.
    #[default]
    No,
    /// Sagas' steps call the world with a key of each attempt's own.
    Keyless,
    /// Whoever decides in a workflow is told so before the decision is asked for, and one of them never asks.
    Hasty,
    /// Ticks do what they do outside of their transaction.
    Outside,
}

/// A whole check.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// The program that runs as a member of the herd when its first argument is `member`.
    pub program: PathBuf,
    /// Where histories are kept, each run's in a folder of its own.
    pub folder: PathBuf,
    /// Sagas, or workflows. There are always four schedules.
    pub instances: usize,
    /// Processes they run on.
    pub processes: u32,
    /// For how long at most processes are killed; for how long schedules run.
    pub duration: Duration,
    /// Repeats the choices.
    pub seed: u64,
    /// Whether faults are injected.
    pub faults: bool,
    /// How the processes are broken.
    pub broken: Broken,
}

impl FleetSettings {
    /// Reads `[--instances N] [--processes N] [--seconds N] [--seed N] [--no-faults] [--broken keyless|hasty|outside]
    /// [--folder PATH]`.
    ///
    /// # Errors
    /// [`WorkcheckError::Usage`] names what is not understood.
    pub fn parse(program: PathBuf, args: &[String]) -> Result<Self, WorkcheckError> {
        let mut settings = Self {
            program,
            folder: PathBuf::from("target/workcheck"),
            instances: 1000,
            processes: 2,
            duration: Duration::from_secs(10),
            seed: 1,
            faults: true,
            broken: Broken::No,
        };
        let mut rest = args.iter();
        while let Some(name) = rest.next() {
            if name == "--no-faults" {
                settings.faults = false;
                continue;
            }
            let value =
                rest.next().ok_or_else(|| WorkcheckError::Usage(format!("`{name}` needs a value")))?;
            match (name.as_str(), value.as_str()) {
                ("--instances", _) => settings.instances = number(value)?,
                ("--processes", _) => settings.processes = number(value)?,
                ("--seconds", _) => settings.duration = Duration::from_secs(number(value)?),
                ("--seed", _) => settings.seed = number(value)?,
                ("--broken", "keyless") => settings.broken = Broken::Keyless,
                ("--broken", "hasty") => settings.broken = Broken::Hasty,
                ("--broken", "outside") => settings.broken = Broken::Outside,
                ("--folder", _) => settings.folder = PathBuf::from(value),
                _ => return Err(WorkcheckError::Usage(format!("`{name} {value}` is no option"))),
            }
        }
        Ok(settings)
    }
}
