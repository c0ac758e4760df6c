//! Registered definitions: drafts, the active one, and those before it.

use serde::{Deserialize, Serialize};

use super::Definition;

/// Where a version of a definition stands.
///
/// | from | to |
/// |---|---|
/// | draft | active, retired |
/// | active | deprecated (by activating another), retired |
/// | deprecated | active (going back), retired |
/// | retired | |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Registered, and starts nothing yet.
    Draft,
    /// New instances are started with it; at most one per code.
    Active,
    /// Another has taken its place; its instances go on.
    Deprecated,
    /// Never to be activated again; its instances go on.
    Retired,
}

impl VersionState {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Retired => "retired",
        }
    }

    /// The state of a name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Draft, Self::Active, Self::Deprecated, Self::Retired].into_iter().find(|s| s.as_str() == text)
    }

    /// Whether the table above has the step.
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Draft | Self::Deprecated, Self::Active) | (Self::Active, Self::Deprecated) => true,
            (from, Self::Retired) => !matches!(from, Self::Retired),
            _ => false,
        }
    }
}

/// A registered version of a definition. Its content never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Counted per code, from 1.
    pub number: u32,
    /// Where it stands.
    pub state: VersionState,
    /// What it says.
    pub definition: Definition,
    /// Who registered it.
    pub by: String,
    /// When.
    pub at: runtime_kernel::Timestamp,
}
