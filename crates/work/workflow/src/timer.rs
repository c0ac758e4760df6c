//! What an instance waits for: times and people.

use runtime_kernel::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that happens by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Of which step; of the whole when absent.
    pub step: Option<String>,
    /// What.
    pub kind: TimerKind,
    /// When.
    pub at: Timestamp,
    /// How many times more after that.
    pub left: u32,
}

/// What happens by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// It will soon be due.
    Warning,
    /// It is due.
    Due,
    /// A reminder, by its place in the SLA.
    Reminder(usize),
    /// An escalation, by its place in the SLA.
    Escalation(usize),
    /// It is over.
    Expiry,
}

/// People that have to be found before something can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// For which step; for the whole when absent.
    pub step: Option<String>,
    /// For what.
    pub purpose: Purpose,
    /// How often that has failed.
    pub failed: u32,
    /// Not before.
    pub at: Timestamp,
}

/// What people are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To decide.
    Seats,
    /// For an escalation, by its place in the SLA.
    Escalation(usize),
}
