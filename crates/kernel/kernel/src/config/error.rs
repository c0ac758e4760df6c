//! Everything that is wrong with a configuration, in one error.

use std::fmt;

use super::source::Source;
use crate::{Classify, ErrorKind};

/// What sort of mistake a [`Problem`] is. Decides the code and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A file is missing, unreadable, too large or not well-formed.
    File,
    /// A key nobody reads.
    UnknownKey,
    /// A value of the wrong type, or one that breaks a section's rule.
    Invalid,
    /// A locked path set outside the super layer.
    Locked,
    /// A secret is referred to by name and nobody supplies it.
    SecretMissing,
    /// The default realm is not among the realms.
    DefaultRealmMissing,
}

impl ProblemKind {
    /// The stable, dotted code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::File => "config.file",
            Self::UnknownKey => "config.unknown_key",
            Self::Invalid => "config.invalid",
            Self::Locked => "config.locked",
            Self::SecretMissing => "config.secret_missing",
            Self::DefaultRealmMissing => "config.default_realm_missing",
        }
    }

    /// The code Athyper used for the same mistake.
    pub const fn athyper_code(self) -> &'static str {
        match self {
            Self::File => "CONFIG_FILE_ERROR",
            Self::UnknownKey | Self::Invalid | Self::Locked => "CONFIG_VALIDATION_ERROR",
            Self::SecretMissing => "IAM_SECRET_REF_MISSING",
            Self::DefaultRealmMissing => "IAM_DEFAULT_REALM_MISSING",
        }
    }

    /// The process's exit code: 2 file, 3 validation, 4 secret missing, 5 default realm missing.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::File => 2,
            Self::UnknownKey | Self::Invalid | Self::Locked => 3,
            Self::SecretMissing => 4,
            Self::DefaultRealmMissing => 5,
        }
    }
}

/// One thing wrong with a configuration: what, where in the tree, and which layer and place set it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The sort of mistake.
    pub kind: ProblemKind,
    /// The dotted path of the key; empty when the problem is not about one key.
    pub path: String,
    /// What is wrong, in words; never holds a secret value.
    pub message: String,
    /// The layer and the place that set it, when one did.
    pub source: Option<Source>,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, path: path.into(), message: message.into(), source: None }
    }

    pub(super) fn at(mut self, source: Option<Source>) -> Self {
        self.source = source;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

/// Why a configuration is refused: every problem found, one on a line. Holds at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Every problem, in the order found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The exit code of a process that stops because of it: the lowest of its problems' codes, so that a
    /// broken file outranks what follows from it.
    pub fn exit_code(&self) -> u8 {
        self.gravest().exit_code()
    }

    /// The code Athyper used for the gravest of its problems.
    pub fn athyper_code(&self) -> &'static str {
        self.gravest().athyper_code()
    }

    /// `Ok` when nothing is wrong.
    pub(super) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    fn gravest(&self) -> ProblemKind {
        self.problems
            .iter()
            .map(|problem| problem.kind)
            .min_by_key(|kind| kind.exit_code())
            .unwrap_or(ProblemKind::Invalid)
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Classify for ConfigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        self.gravest().code()
    }
}

crate::into_error!(ConfigError);
