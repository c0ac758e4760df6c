//! What to run, for how long, and how badly.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::WorkcheckError;

/// A worker broken on purpose, so that the check is seen to find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// As it should be.
    #[default]
    No,
    /// Lets its leases run out, and reports under whatever lease a job has by then.
    Unfenced,
    /// Claims without the limits of keys.
    Unlimited,
    /// Runs each job twice under one lease.
    Twice,
    /// Takes some completions for reported that were not.
    Forgetful,
}

impl Broken {
    const ALL: [Self; 5] = [Self::No, Self::Unfenced, Self::Unlimited, Self::Twice, Self::Forgetful];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unfenced => "unfenced",
            Self::Unlimited => "unlimited",
            Self::Twice => "twice",
            Self::Forgetful => "forgetful",
        }
    }

    fn parse(text: &str) -> Result<Self, WorkcheckError> {
        let found = Self::ALL.into_iter().find(|broken| broken.as_str() == text);
        found.ok_or_else(|| WorkcheckError::Usage(format!("`{text}` is no way to be broken")))
    }
}

/// A whole check.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program that runs as a worker when its first argument is `worker`.
    pub program: PathBuf,
    /// Where histories are kept, each run's in a folder of its own.
    pub folder: PathBuf,
    /// How long jobs are enqueued and faults injected.
    pub duration: Duration,
    /// Repeats the choices.
    pub seed: u64,
    /// Worker processes.
    pub workers: usize,
    /// Jobs enqueued per second, as long as fewer than a thousand are unfinished.
    pub rate: u64,
    /// Whether faults are injected.
    pub faults: bool,
    /// How the workers are broken.
    pub broken: Broken,
}

impl Settings {
    /// Reads `[--seconds N] [--seed N] [--workers N] [--rate N] [--no-faults] [--broken HOW] [--folder PATH]`.
    ///
    /// # Errors
    /// [`WorkcheckError::Usage`] names what is not understood.
    pub fn parse(program: PathBuf, args: &[String]) -> Result<Self, WorkcheckError> {
        let mut settings = Self {
            program,
            folder: PathBuf::from("target/workcheck"),
            duration: Duration::from_secs(20),
            seed: 1,
            workers: 3,
            rate: 150,
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
            match name.as_str() {
                "--seconds" => settings.duration = Duration::from_secs(number(value)?),
                "--seed" => settings.seed = number(value)?,
                "--workers" => settings.workers = number(value)?,
                "--rate" => settings.rate = number(value)?,
                "--broken" => settings.broken = Broken::parse(value)?,
                "--folder" => settings.folder = PathBuf::from(value),
                _ => return Err(WorkcheckError::Usage(format!("`{name}` is no option"))),
            }
        }
        Ok(settings)
    }
}

/// One worker process.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The database.
    pub url: String,
    /// Its history.
    pub history: PathBuf,
    /// Its most connections.
    pub pool: u32,
    /// How many seconds its clock is ahead.
    pub ahead: i64,
    /// How it is broken.
    pub broken: Broken,
}

impl WorkerSettings {
    pub(crate) fn args(&self) -> [String; 6] {
        [
            "worker".to_owned(),
            self.url.clone(),
            self.history.display().to_string(),
            self.pool.to_string(),
            self.ahead.to_string(),
            self.broken.as_str().to_owned(),
        ]
    }

    /// Reads what the driver has written after `worker`.
    ///
    /// # Errors
    /// [`WorkcheckError::Usage`].
    pub fn parse(args: &[String]) -> Result<Self, WorkcheckError> {
        let [url, history, pool, ahead, broken] = args else {
            return Err(WorkcheckError::Usage("worker URL HISTORY POOL AHEAD BROKEN".to_owned()));
        };
        Ok(Self {
            url: url.clone(),
            history: PathBuf::from(history),
            pool: number(pool)?,
            ahead: number(ahead)?,
            broken: Broken::parse(broken)?,
        })
    }
}

pub(crate) fn number<N: std::str::FromStr>(text: &str) -> Result<N, WorkcheckError> {
    text.parse().map_err(|_| WorkcheckError::Usage(format!("`{text}` is no number")))
}
