//! Who is asking, once that has been proved.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tenant::Name;

/// What kind of actor a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program with its own credentials, an API key among them.
    Service,
    /// The house itself: schedules, housekeeping, the command line.
    System,
}

/// Which tenants a principal may enter beside the one its claims name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Only where its claims put it.
    #[default]
    Claimed,
    /// These tenants of its realm.
    Tenants(Vec<Name>),
    /// Every tenant of its realm.
    Realm,
    /// Every realm: the operator of the whole installation.
    Everywhere,
}

/// A proven identity: what authentication leaves behind and authorisation reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The stable subject: a user's or key's id.
    pub id: Arc<str>,
    /// What kind of actor.
    pub kind: PrincipalKind,
    /// What it may do, as `area:verb` strings; `*` stands for everything.
    pub scopes: Vec<Arc<str>>,
    /// The realm its credentials belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<Name>,
    /// The tenant its credentials name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// The organisation its credentials name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<Name>,
    /// Where else it may go.
    #[serde(default)]
    pub reach: Reach,
}

impl Principal {
    /// A principal without scopes, realm or tenant.
    pub fn new(kind: PrincipalKind, id: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            kind,
            scopes: Vec::new(),
            realm: None,
            tenant: None,
            org: None,
            reach: Reach::Claimed,
        }
    }

    /// The house itself, allowed everything everywhere.
    pub fn system(id: impl Into<Arc<str>>) -> Self {
        Self {
            scopes: vec![Arc::from("*")],
            reach: Reach::Everywhere,
            ..Self::new(PrincipalKind::System, id)
        }
    }

    /// Whether a scope is granted: exactly, by `area:*`, or by `*`.
    ///
    /// ```
    /// use runtime_kernel::{Principal, PrincipalKind};
    ///
    /// let mut principal = Principal::new(PrincipalKind::Service, "key-1");
    /// principal.scopes = vec!["jobs:*".into(), "keys:read".into()];
    /// assert!(principal.allows("jobs:write"));
    /// assert!(principal.allows("keys:read"));
    /// assert!(!principal.allows("keys:write"));
    /// assert!(!principal.allows("jobs"));
    /// ```
    pub fn allows(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| {
            &**granted == "*"
                || &**granted == scope
                || granted
                    .strip_suffix('*')
                    .is_some_and(|area| area.ends_with(':') && scope.starts_with(area))
        })
    }
}
