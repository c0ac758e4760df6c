//! One thing wrong with a definition: where, what kind, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where: `steps[2].depends_on[0]`.
    pub path: String,
    /// What kind of problem.
    pub code: ProblemCode,
    /// In words.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.path, self.message, self.code.as_str())
    }
}

/// Kinds of problems of definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each says itself, and its message says the rest")]
pub enum ProblemCode {
    BadName,
    NoSteps,
    TooMany,
    DuplicateStepId,
    LevelGap,
    UnknownDependency,
    SelfDependency,
    CircularDependency,
    NoApprovers,
    BadApprover,
    QuorumUnreachable,
    BadQuorum,
    MissingCondition,
    UselessCondition,
    BadCondition,
    BadSla,
    CalendarMissing,
    BadCalendar,
    RequesterOnly,
}

impl ProblemCode {
    /// As written: `CIRCULAR_DEPENDENCY`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadName => "BAD_NAME",
            Self::NoSteps => "NO_STEPS",
            Self::TooMany => "TOO_MANY",
            Self::DuplicateStepId => "DUPLICATE_STEP_ID",
            Self::LevelGap => "LEVEL_GAP",
            Self::UnknownDependency => "UNKNOWN_DEPENDENCY",
            Self::SelfDependency => "SELF_DEPENDENCY",
            Self::CircularDependency => "CIRCULAR_DEPENDENCY",
            Self::NoApprovers => "NO_APPROVERS",
            Self::BadApprover => "BAD_APPROVER",
            Self::QuorumUnreachable => "QUORUM_UNREACHABLE",
            Self::BadQuorum => "BAD_QUORUM",
            Self::MissingCondition => "MISSING_CONDITION",
            Self::UselessCondition => "USELESS_CONDITION",
            Self::BadCondition => "BAD_CONDITION",
            Self::BadSla => "BAD_SLA",
            Self::CalendarMissing => "CALENDAR_MISSING",
            Self::BadCalendar => "BAD_CALENDAR",
            Self::RequesterOnly => "REQUESTER_ONLY",
        }
    }
}
