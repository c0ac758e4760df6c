//! What an operator sets about workflows.

use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::units::{self, ByteSize};
use serde::{Deserialize, Serialize};

use crate::approvers::StaticApprovers;
use crate::definition::Definition;

/// The section `workflow`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WorkflowConfig {
    /// A folder of definitions, `*.yaml`, `*.yml` and `*.json`, installed at the start for every tenant.
    pub definitions_dir: Option<PathBuf>,
    /// Definitions, installed at the start for every tenant.
    pub definitions: Vec<Definition>,
    /// Who has which role, is in which group and stands in which relation, where nobody else knows.
    pub people: StaticApprovers,
    /// How often what is due is looked for. 1 s unless told.
    #[serde(with = "units::duration")]
    pub tick: Duration,
    /// Instances looked at in one query. 100 unless told, 10000 at most.
    pub batch: u32,
    /// The largest entity, and the largest metadata, as JSON. 256 KiB unless told.
    pub max_entity: ByteSize,
}

impl Default for WorkflowConfig {
    fn default() -> Self {
        Self {
            definitions_dir: None,
            definitions: Vec::new(),
            people: StaticApprovers::default(),
            tick: Duration::from_secs(1),
            batch: 100,
            max_entity: ByteSize::kib(256),
        }
    }
}

impl WorkflowConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(String, String)> {
        if self.tick.is_zero() {
            return Some(("tick".to_owned(), "must be longer than zero".to_owned()));
        }
        if !(1..=10_000).contains(&self.batch) {
            return Some(("batch".to_owned(), "must be 1 to 10000".to_owned()));
        }
        if self.max_entity.as_u64() == 0 {
            return Some(("max_entity".to_owned(), "must be more than zero".to_owned()));
        }
        self.definitions.iter().enumerate().find_map(|(index, definition)| {
            let problem = definition.problems().into_iter().next()?;
            let code = problem.code.as_str();
            Some((format!("definitions[{index}].{}", problem.path), format!("{} ({code})", problem.message)))
        })
    }
}
