//! Collects the layers of a configuration.

use std::path::PathBuf;

use figment::Provider;
use serde_json::Value as Json;

use super::Config;
use super::declared::Declared;
use super::error::{ConfigError, Problem, ProblemKind};
use super::layers::{Sources, code_source};
use super::node::{Node, Value, segments};
use super::provider;
use super::section::Section;
use super::source::Place;
use super::state::Shared;

/// Collects the layers of a [`Config`]; nothing is read before [`build`](Self::build).
#[derive(Default)]
#[must_use]
pub struct ConfigBuilder {
    sources: Sources,
    sections: Vec<Declared>,
}

impl ConfigBuilder {
    /// The prefix of environment variables, in upper case; `RUNTIME` unless told.
    ///
    /// `RUNTIME` reads `RUNTIME__HTTP__PORT`, `RUNTIME_SUPER__DB__URL` and `RUNTIME_CONFIG` (the file's path);
    /// its lower case is the stem of the file searched for. The prefix `ATHYPER` also switches
    /// [`athyper`](Self::athyper) on.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.sources.prefix = prefix.into();
        self.sources.athyper |= self.sources.prefix == super::athyper::PREFIX;
        self
    }

    /// Reads Athyper's files and variables: camelCase keys, its names for our sections, its plain variables
    /// (`DATABASE_URL`, `PORT`, …) and `ATHYPER_SUPER__…`.
    ///
    /// What this build has no reader for is listed by [`explain`](Config::explain) as not used, as is any unknown
    /// key of the file. Its plain variables may set locked paths, as they may there.
    pub fn athyper(self) -> Self {
        self.prefix(super::athyper::PREFIX)
    }

    /// The configuration file; its ending (`.toml`, `.yaml`, `.yml`, `.json`) names the format. It must exist.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.sources.file = Some(path.into());
        self
    }

    /// The directory in which `runtime.toml`, `.yaml`, `.yml` or `.json` is looked for. None is fine; two are
    /// refused.
    pub fn search(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.search = Some(directory.into());
        self
    }

    /// Adds a figment provider to the file layer, above the file; read again at every reload.
    pub fn provider(mut self, provider: impl Provider + Send + Sync + 'static) -> Self {
        self.sources.providers.push(provider::reader(provider));
        self
    }

    /// Adds environment variables; those without the prefix are ignored.
    pub fn env<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.sources.env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Adds the variables of this process. One that is not Unicode is left out unless it carries our prefix,
    /// which is a mistake that [`build`](Self::build) reports.
    pub fn process_env(mut self) -> Self {
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => self.sources.env.push((name, value)),
                (Ok(name), Err(_)) if name.starts_with(&format!("{}_", self.sources.prefix)) => {
                    let message = format!("the environment variable {name} is not Unicode");
                    self.sources.code.push(Err(Problem::new(ProblemKind::Invalid, "", message)));
                }
                _ => {}
            }
        }
        self
    }

    /// Sets one dotted path from the program, over file and environment.
    pub fn set(mut self, path: &str, value: impl Into<Json>) -> Self {
        let node = Node::from_json(value.into(), &code_source(Place::Code));
        self.sources.code.push(Ok(Node::nested(&segments(path), node)));
        self
    }

    /// Sets `path=value` as a command line gives it; the text is read as the target type asks.
    pub fn assign(mut self, assignment: &str) -> Self {
        self.sources.code.push(match assignment.split_once('=') {
            Some((path, text)) if !path.trim().is_empty() => {
                let node = Node::new(Value::Text(text.to_owned()), code_source(Place::CommandLine));
                Ok(Node::nested(&segments(path.trim()), node))
            }
            _ => {
                let message = format!("`{assignment}` is not of the form path=value");
                Err(Problem::new(ProblemKind::Invalid, "", message).at(Some(code_source(Place::CommandLine))))
            }
        });
        self
    }

    /// Declares a section, so that `build` reads and checks it.
    pub fn section<T: Section>(mut self) -> Self {
        self.sections.push(Declared::of::<T>());
        self
    }

    /// Reads every layer, then the kernel's own keys and each declared section.
    ///
    /// # Errors
    /// Every problem found in a file, or, when all files could be read, every problem in those sections.
    pub fn build(self) -> Result<Config, ConfigError> {
        let loaded = self.sources.load()?;
        Ok(Config::over(Shared::start(self.sources, loaded, self.sections)?))
    }
}
