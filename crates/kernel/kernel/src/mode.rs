//! Which part of the service a process plays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What this process does. `All`, the default, does everything in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Serves HTTP.
    Api,
    /// Runs jobs.
    Worker,
    /// Fires schedules and housekeeping; exactly one leader however many run.
    Scheduler,
    /// All of it.
    #[default]
    All,
}

impl Mode {
    /// Every mode.
    pub const EACH: [Self; 4] = [Self::Api, Self::Worker, Self::Scheduler, Self::All];

    /// Whether a process of this mode runs what is bound to `part`.
    pub fn includes(self, part: Self) -> bool {
        self == Self::All || part == Self::All || self == part
    }

    /// The name in configuration and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A mode nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode `{0}`: expected api, worker, scheduler or all")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::EACH.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_runs_everything_and_each_other_mode_only_its_own() {
        for part in Mode::EACH {
            assert!(Mode::All.includes(part));
            assert!(part.includes(part));
        }
        assert!(!Mode::Api.includes(Mode::Worker));
        assert!(!Mode::Worker.includes(Mode::Scheduler));
    }

    #[test]
    fn names_round_trip() {
        for mode in Mode::EACH {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert!("API".parse::<Mode>().is_err());
    }
}
