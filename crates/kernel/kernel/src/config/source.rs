//! Which layer set a value, and at which place.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A layer of the configuration; a later one overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layer {
    /// The section's own `Default`.
    Default,
    /// The configuration file.
    File,
    /// Environment variables: `RUNTIME__HTTP__PORT`.
    Env,
    /// The command line and the program itself.
    Code,
    /// The operator's last word, the only layer that may set locked paths: `RUNTIME_SUPER__DB__URL`.
    Super,
}

impl Layer {
    /// Every layer, lowest first.
    pub const ALL: [Self; 5] = [Self::Default, Self::File, Self::Env, Self::Code, Self::Super];

    /// The layer's name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Env => "env",
            Self::Code => "code",
            Self::Super => "super",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place inside a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The section's `Default`.
    Default,
    /// A line of a file; lines count from 1.
    File {
        /// The file as it was named.
        path: Arc<PathBuf>,
        /// The line of the key.
        line: usize,
    },
    /// An environment variable.
    Variable(Arc<str>),
    /// A file that an environment variable ending in `_FILE` names.
    VariableFile {
        /// The variable.
        variable: Arc<str>,
        /// The file that holds the value.
        path: Arc<PathBuf>,
    },
    /// `--set` on the command line.
    CommandLine,
    /// `ConfigBuilder::set` in the program.
    Code,
    /// A figment provider, by the name in its metadata.
    Provider(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Provider(name) => f.write_str(name),
            Self::VariableFile { variable, path } => write!(f, "{variable} = {}", path.display()),
            Self::CommandLine => f.write_str("--set"),
            Self::Code => f.write_str("code"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A layer and the place inside it. Shown as `file, runtime.toml:3`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Source {
    /// The layer.
    pub layer: Layer,
    /// The place.
    pub place: Place,
}

impl Source {
    pub(super) const fn new(layer: Layer, place: Place) -> Self {
        Self { layer, place }
    }

    pub(super) const DEFAULT: Self = Self::new(Layer::Default, Place::Default);
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layer, place) = (self.layer.to_string(), self.place.to_string());
        if layer == place { f.write_str(&layer) } else { write!(f, "{layer}, {place}") }
    }
}
