//! Why a graph of services is refused, and why a value could not be had.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::{Classify, Error, ErrorKind};

/// Everything that is wrong with a graph of services. Holds at least one problem.
#[derive(Clone, Debug)]
pub struct ContainerError {
    pub(super) problems: Vec<Problem>,
}

impl ContainerError {
    /// Every problem: those of single registrations first, then those of paths.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ContainerError {
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

impl std::error::Error for ContainerError {}

impl Classify for ContainerError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }

    fn code(&self) -> &'static str {
        "container.graph"
    }
}

crate::into_error!(ContainerError);

/// Where a registration was written.
pub type RegisteredAt = &'static Location<'static>;

/// One thing wrong with a graph of services.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// One name registered twice.
    Duplicate {
        /// The name.
        token: &'static str,
        /// The registration that came first.
        first: RegisteredAt,
        /// The one too many.
        again: RegisteredAt,
    },
    /// A dependency that nobody registers.
    Missing {
        /// The name.
        token: &'static str,
        /// Who needs it.
        needed_by: &'static str,
        /// Where that one is registered.
        at: RegisteredAt,
        /// A registered name that is close.
        near: Option<&'static str>,
    },
    /// A name used for two types.
    WrongType {
        /// The name.
        token: &'static str,
        /// The registered type.
        registered: &'static str,
        /// Who asks for another, and where that one is registered.
        needed_by: (&'static str, RegisteredAt),
        /// The type asked for.
        asked: &'static str,
    },
    /// Services that need each other, first and last the same.
    Cycle {
        /// The way round.
        path: Vec<&'static str>,
    },
    /// A singleton that would keep what belongs to one scope, and so show it to all others.
    Captive {
        /// From the singleton over transients to the scoped service.
        path: Vec<&'static str>,
        /// Where the singleton is registered.
        at: RegisteredAt,
    },
    /// A replacement for what nobody registers.
    IdleReplacement {
        /// The name.
        token: &'static str,
        /// Where it was asked for.
        at: RegisteredAt,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { token, first, again } => {
                write!(f, "`{token}` is registered twice: at {first} and at {again}")
            }
            Self::Missing { token, needed_by, at, near } => {
                write!(f, "`{needed_by}` needs `{token}`, which nobody registers")?;
                if let Some(near) = near {
                    write!(f, " (did you mean `{near}`?)")?;
                }
                write!(f, ": `{needed_by}` is registered at {at}")
            }
            Self::WrongType { token, registered, needed_by: (name, at), asked } => {
                write!(f, "`{name}` needs `{token}` as `{asked}`, but it is registered as `{registered}`")?;
                write!(f, ": `{name}` is registered at {at}")
            }
            Self::Cycle { path } => write!(f, "services need each other: {}", path.join(" -> ")),
            Self::Captive { path, at } => {
                let (singleton, scoped) = (path.first().unwrap_or(&""), path.last().unwrap_or(&""));
                write!(f, "singleton `{singleton}` would keep scoped `{scoped}`: {}", path.join(" -> "))?;
                write!(f, ": `{singleton}` is registered at {at}")
            }
            Self::IdleReplacement { token, at } => {
                write!(f, "`{token}` is replaced at {at}, but nobody registers it")
            }
        }
    }
}

/// The cause of a failed construction, shared by all who waited for it.
#[derive(Debug)]
struct NotBuilt {
    token: &'static str,
    cause: Arc<Error>,
}

impl fmt::Display for NotBuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` could not be built", self.token)
    }
}

impl std::error::Error for NotBuilt {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The failure as one of the waiters gets it: it means what the factory's error means, and names the service.
pub(super) fn not_built(token: &'static str, cause: Arc<Error>) -> Error {
    let mut error = Error::new(cause.kind(), cause.code().to_owned(), cause.message().to_owned())
        .with_retry(cause.retry());
    for detail in cause.details() {
        error = error.with_detail(detail.at.clone(), detail.message.clone());
    }
    error.with_source(NotBuilt { token, cause })
}

pub(super) fn unknown(token: &'static str) -> Error {
    misuse("container.missing", format!("nobody registers `{token}`"))
}

pub(super) fn wrong_type(token: &'static str, registered: &'static str, asked: &'static str) -> Error {
    misuse("container.type", format!("`{token}` is registered as `{registered}`, not as `{asked}`"))
}

pub(super) fn no_scope(token: &'static str) -> Error {
    misuse("container.no_scope", format!("`{token}` lives in scopes: ask a scope for it, not the root"))
}

pub(super) fn disposed(token: &'static str) -> Error {
    let source = format!("`{token}` was asked of a container that has been disposed");
    Error::new(ErrorKind::Unavailable, "container.disposed", "the service is shutting down")
        .with_source(source)
}

fn misuse(code: &'static str, message: String) -> Error {
    Error::new(ErrorKind::Internal, code, "an internal error occurred").with_source(message)
}
