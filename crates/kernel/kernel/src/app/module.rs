//! A part of the service, and why it may refuse to be set up.

use std::fmt;

use super::App;
use super::exit::exit_code;
use crate::config::ConfigError;
use crate::container::ContainerError;
use crate::{Classify, Error, ErrorKind};

/// A part of the service: reads its section, registers services, contributes routes, checks and hooks.
pub trait Module: Send + 'static {
    /// The module's name, unique in an app.
    fn name(&self) -> &'static str;

    /// Wires the module in. Nothing may be started here.
    ///
    /// # Errors
    /// [`SetupError`] names what is wrong; the app is then not built.
    fn register(&self, app: &mut App) -> Result<(), SetupError>;

    /// Called once every module has registered, in the same order: the place to take contributions up.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    fn finish(&self, app: &mut App) -> Result<(), SetupError> {
        let _ = app;
        Ok(())
    }
}

/// Why an app could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The service graph is wrong.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Two modules have one name.
    #[error("module `{0}` is added twice")]
    DuplicateModule(&'static str),
    /// A module refused.
    #[error("module `{module}`: {message}")]
    Module {
        /// Which.
        module: &'static str,
        /// Why, in words.
        message: String,
    },
    /// Something a module called failed.
    #[error("{}", .0.report())]
    Failed(Error),
    /// What went wrong while a module was wired in.
    #[error("module `{module}`: {error}")]
    In {
        /// Which.
        module: &'static str,
        /// What.
        #[source]
        error: Box<SetupError>,
    },
}

impl SetupError {
    /// A module's refusal, in words.
    pub fn module(module: &'static str, message: impl fmt::Display) -> Self {
        Self::Module { module, message: message.to_string() }
    }

    /// The exit code of a process that cannot be set up: the configuration's own (2 to 5), else what
    /// [`exit_code`] says, else 50.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::In { error, .. } => error.exit_code(),
            other => exit_code(Classify::code(other)),
        }
    }

    pub(super) fn within(self, module: &'static str) -> Self {
        match self {
            Self::Module { module: named, .. } if named == module => self,
            error => Self::In { module, error: Box::new(error) },
        }
    }

    fn kernel_code(code: &str) -> &'static str {
        // Only codes that decide an exit code have to survive; the text carries the rest.
        super::exit::KNOWN.iter().find(|(known, _)| *known == code).map_or("app.setup", |(known, _)| known)
    }
}

impl From<Error> for SetupError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Classify for SetupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(error) => error.kind(),
            Self::Container(error) => error.kind(),
            Self::Failed(error) => error.kind(),
            Self::In { error, .. } => error.kind(),
            Self::DuplicateModule(_) | Self::Module { .. } => ErrorKind::Invalid,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Config(error) => error.code(),
            Self::Container(error) => error.code(),
            Self::Failed(error) => Self::kernel_code(error.code()),
            Self::In { error, .. } => Classify::code(&**error),
            Self::DuplicateModule(_) | Self::Module { .. } => "app.setup",
        }
    }
}

crate::into_error!(SetupError);
