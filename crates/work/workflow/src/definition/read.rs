//! Definitions from text, with the place of what is wrong; and their JSON Schema.

use serde_json::Value;

use super::Definition;
use crate::error::WorkflowError;

/// The largest text of a definition.
pub const MAX_BYTES: usize = 1 << 20;

/// How a definition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JSON.
    Json,
    /// YAML 1.2.
    #[cfg(feature = "yaml")]
    Yaml,
}

impl Format {
    /// By the ending of a file's name: `json`, `yaml`, `yml`.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "json" => Some(Self::Json),
            #[cfg(feature = "yaml")]
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

impl Definition {
    /// Reads and checks a definition.
    ///
    /// # Errors
    /// [`WorkflowError::Unreadable`] names the line or the path; [`WorkflowError::Definition`] every problem.
    pub fn parse(text: &str, format: Format) -> Result<Self, WorkflowError> {
        if text.len() > MAX_BYTES {
            return Err(WorkflowError::TooLarge { what: "definition", size: text.len(), limit: MAX_BYTES });
        }
        let value = match format {
            Format::Json => serde_json::from_str::<Value>(text).map_err(|error| {
                WorkflowError::Unreadable { at: format!("line {}", error.line()), why: error.to_string() }
            })?,
            #[cfg(feature = "yaml")]
            Format::Yaml => super::yaml::parse(text)?,
        };
        Self::from_value(value)
    }

    /// The same from JSON that has been read.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_value(value: Value) -> Result<Self, WorkflowError> {
        let definition: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            WorkflowError::Unreadable { at: error.path().to_string(), why: error.inner().to_string() }
        })?;
        definition.check()?;
        Ok(definition)
    }

    /// Whether it can be registered.
    ///
    /// # Errors
    /// [`WorkflowError::Definition`] names every problem.
    pub fn check(&self) -> Result<(), WorkflowError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(WorkflowError::Definition(problems)) }
    }
}

/// The JSON Schema (draft 2020-12) of a definition, for editors.
#[cfg(feature = "schema")]
pub fn schema() -> Value {
    schemars::schema_for!(Definition).to_value()
}
