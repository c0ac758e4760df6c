//! Layered configuration: who set what, who may, and what may change while the process runs.

mod error;
mod section;
mod source;

use serde_json::{Map, Value};

pub use error::{ConfigError, Problem, ProblemKind};
pub use section::{Invalid, Section};
pub use source::{Layer, Place, Source};

/// The merged configuration. Cheap to clone.
///
/// `Config::default()` has no layers: every section reads as its `Default`.
#[derive(Clone, Debug, Default)]
pub struct Config {
    tree: Value,
}

/// Collects the layers of a [`Config`].
#[derive(Clone, Debug, Default)]
pub struct ConfigBuilder {
    tree: Value,
}

impl Config {
    /// Starts with no layers.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The typed section, with every layer merged and validated.
    pub fn section<T: Section>(&self) -> Result<T, ConfigError> {
        let mut node = &self.tree;
        for part in T::PATH.split('.') {
            match node.get(part) {
                Some(next) => node = next,
                None => return Ok(T::default()),
            }
        }
        let section: T = serde_json::from_value(node.clone())
            .map_err(|error| Problem::new(ProblemKind::Invalid, T::PATH, error.to_string()))?;
        section.validate().map_err(|error| Problem::new(ProblemKind::Invalid, T::PATH, error.to_string()))?;
        Ok(section)
    }
}

impl ConfigBuilder {
    /// Sets one path from the program.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut node = &mut self.tree;
        for part in path.split('.') {
            if !node.is_object() {
                *node = Value::Object(Map::new());
            }
            let Value::Object(table) = node else { return self };
            node = table.entry(part).or_insert(Value::Null);
        }
        *node = value.into();
        self
    }

    /// Merges and checks the layers.
    pub fn build(self) -> Result<Config, ConfigError> {
        Ok(Config { tree: self.tree })
    }
}
