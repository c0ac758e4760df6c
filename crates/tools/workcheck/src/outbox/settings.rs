//! What to run, how fast, and how badly.

use std::path::PathBuf;
use std::time::Duration;

use runtime_outbox::OnParked;
use serde::{Deserialize, Serialize};

use crate::error::WorkcheckError;
use crate::settings::number;

/// A process broken on purpose, so that the check is seen to find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// As it should be.
    #[default]
    No,
    /// Relays take a message for sent before they send it.
    Hasty,
    /// Relays send what they have claimed backwards.
    Backwards,
    /// Consumers have no inbox.
    Forgetful,
}

impl Broken {
    const ALL: [Self; 4] = [Self::No, Self::Hasty, Self::Backwards, Self::Forgetful];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Hasty => "hasty",
            Self::Backwards => "backwards",
            Self::Forgetful => "forgetful",
        }
    }
}

/// A whole check.
#[derive(Clone, Debug)]
pub struct OutboxSettings {
    /// The program that runs as a member of the herd when its first argument is `member`.
    pub program: PathBuf,
    /// Where histories are kept, each run's in a folder of its own.
    pub folder: PathBuf,
    /// How long messages are added faster than they can be sent.
    pub duration: Duration,
    /// Repeats the choices.
    pub seed: u64,
    /// Relay processes.
    pub relays: u32,
    /// Consumer processes.
    pub consumers: u32,
    /// Messages added per second: ten times what all relays together can send meanwhile.
    pub rate: u32,
    /// Whether faults are injected.
    pub faults: bool,
    /// What becomes of a key whose message was parked.
    pub on_parked: OnParked,
    /// Whether messages go through a NATS server, which is restarted, instead of an event log in the database.
    pub nats: bool,
    /// How the processes are broken.
    pub broken: Broken,
}

impl OutboxSettings {
    /// Reads `[--seconds N] [--seed N] [--relays N] [--consumers N] [--rate N] [--no-faults] [--hold] [--nats]
    /// [--broken HOW] [--folder PATH]`.
    ///
    /// # Errors
    /// [`WorkcheckError::Usage`] names what is not understood.
    pub fn parse(program: PathBuf, args: &[String]) -> Result<Self, WorkcheckError> {
        let mut settings = Self {
            program,
            folder: PathBuf::from("target/workcheck"),
            duration: Duration::from_secs(5),
            seed: 1,
            relays: 2,
            consumers: 2,
            rate: 600,
            faults: true,
            on_parked: OnParked::Continue,
            nats: false,
            broken: Broken::No,
        };
        let mut rest = args.iter();
        while let Some(name) = rest.next() {
            match name.as_str() {
                "--no-faults" => settings.faults = false,
                "--hold" => settings.on_parked = OnParked::Hold,
                "--nats" => settings.nats = true,
                _ => {
                    let value = rest
                        .next()
                        .ok_or_else(|| WorkcheckError::Usage(format!("`{name}` needs a value")))?;
                    settings.set(name, value)?;
                }
            }
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), WorkcheckError> {
        match name {
            "--seconds" => self.duration = Duration::from_secs(number(value)?),
            "--seed" => self.seed = number(value)?,
            "--relays" => self.relays = number(value)?,
            "--consumers" => self.consumers = number(value)?,
            "--rate" => self.rate = number(value)?,
            "--broken" => {
                let found = Broken::ALL.into_iter().find(|broken| broken.as_str() == value);
                let unknown = || WorkcheckError::Usage(format!("`{value}` is no way to be broken"));
                self.broken = found.ok_or_else(unknown)?;
            }
            "--folder" => self.folder = PathBuf::from(value),
            _ => return Err(WorkcheckError::Usage(format!("`{name}` is no option"))),
        }
        Ok(())
    }
}
