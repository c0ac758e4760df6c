//! Where a rollout stands.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use crate::analysis::Analysis;
use crate::assign::bucket;
use crate::error::RolloutError;

/// All of the traffic: weights count hundredths of a per cent.
pub const WHOLE: u32 = 10_000;

/// One of the two that requests may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What was there before; blue.
    #[serde(alias = "blue", alias = "stable")]
    Primary,
    /// What is new; green.
    #[serde(alias = "green")]
    Canary,
}

impl Side {
    /// As headers, cookies and metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Canary => "canary",
        }
    }

    /// The side of that name; blue and stable are primary, green is canary.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "primary" | "blue" | "stable" => Some(Self::Primary),
            "canary" | "green" => Some(Self::Canary),
            _ => None,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Canary,
            Self::Canary => Self::Primary,
        }
    }
}

/// How a rollout proceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// By steps of growing weight.
    Canary,
    /// All at once, to a side that has been verified.
    BlueGreen,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is going on.
    Idle,
    /// A canary takes its share and is looked at.
    Running,
    /// It keeps its share, and nothing moves by itself.
    Paused,
    /// The canary has everything.
    Promoted,
    /// It has nothing any more.
    RolledBack,
    /// A side is made ready: only those pinned to it go there.
    Prepared {
        /// Which.
        side: Side,
        /// Whether somebody has verified it.
        verified: bool,
    },
    /// The other side finishes what it has begun.
    Draining {
        /// Until when.
        until: Timestamp,
    },
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The canary's share in hundredths of a per cent: 1 to 10,000.
    pub weight: u32,
    /// How long it is held at least.
    #[serde(with = "runtime_kernel::units::duration")]
    pub hold: Duration,
    /// How many requests the canary must have answered before the next step.
    #[serde(default)]
    pub min_requests: u64,
}

/// The steps of a canary, and how long blue-green drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The steps, of growing weight. Default 1 %, 5 %, 25 % and 50 %, 10 min and 500 requests each.
    pub steps: Vec<Step>,
    /// How long the side that was left finishes what it has begun. Default 30 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub drain: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        let step = |weight| Step { weight, hold: Duration::from_mins(10), min_requests: 500 };
        Self { steps: [100, 500, 2_500, 5_000].map(step).to_vec(), drain: Duration::from_secs(30) }
    }
}

impl Plan {
    pub(crate) fn check(&self) -> Result<(), RolloutError> {
        let wrong = |message: &'static str| {
            Err(RolloutError::Config { key: "plan.steps".into(), message: message.into() })
        };
        if self.steps.is_empty() || self.steps.len() > 100 {
            return wrong("must be 1 to 100");
        }
        if self.steps.iter().any(|step| !(1..=WHOLE).contains(&step.weight)) {
            return wrong("must have weights of 1 to 10000");
        }
        if self.steps.windows(2).any(|pair| matches!(pair, [a, b] if a.weight >= b.weight)) {
            return wrong("must grow in weight");
        }
        Ok(())
    }
}

/// A rollout as it rests in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rollout {
    /// Its name.
    pub name: String,
    /// How it proceeds.
    pub kind: Kind,
    /// Where it is.
    pub phase: Phase,
    /// The canary's share in hundredths of a per cent.
    pub weight: u32,
    /// Subjects that go to one side whatever the weight.
    pub pins: BTreeMap<String, Side>,
    /// How it is to proceed.
    pub plan: Plan,
    /// Which step it is at.
    pub step: usize,
    /// When it came there.
    pub since: Timestamp,
    /// What was last done to it, and why.
    pub reason: String,
    /// Blue-green: the side that was left by the last switch, for as long as going back to it is possible.
    #[serde(default)]
    pub left: Option<Side>,
    /// What the analysis has seen since then.
    pub analysis: Analysis,
    /// Counts the times evidence was begun anew.
    pub generation: u64,
    /// Counts the changes: the compare-and-swap that lets one of two racing changes win.
    pub revision: u64,
}

impl Rollout {
    /// A rollout at rest, with everything on the primary side.
    pub fn new(name: impl Into<String>, kind: Kind, plan: Plan, now: Timestamp) -> Self {
        Self {
            name: name.into(),
            kind,
            phase: Phase::Idle,
            weight: 0,
            pins: BTreeMap::new(),
            plan,
            step: 0,
            since: now,
            reason: "created".to_owned(),
            left: None,
            analysis: Analysis::default(),
            generation: 0,
            revision: 0,
        }
    }

    /// Where a subject goes: where it is pinned to, else by its place among ten thousand.
    pub fn side(&self, subject: &str) -> Side {
        if let Some(side) = self.pins.get(subject) {
            return *side;
        }
        self.side_of_bucket(|| bucket(&self.name, subject))
    }

    pub(crate) fn side_of_bucket(&self, bucket: impl FnOnce() -> u32) -> Side {
        match self.weight {
            0 => Side::Primary,
            WHOLE => Side::Canary,
            weight if bucket() < weight => Side::Canary,
            _ => Side::Primary,
        }
    }

    /// The side that has everything, or most.
    pub fn active(&self) -> Side {
        if self.weight > WHOLE / 2 { Side::Canary } else { Side::Primary }
    }
}
