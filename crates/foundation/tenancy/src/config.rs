//! The realms, tenants and organisations there are, and how strictly they are told apart.

use std::collections::BTreeMap;

use runtime_kernel::Name;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Settings of a realm, tenant or organisation, read by whoever cares; deeper ones win over outer ones.
pub type Defaults = Map<String, Value>;

/// The section `tenancy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TenancyConfig {
    /// Whether callers choose among realms. Default `single_realm`.
    pub strategy: Strategy,
    /// The realm of callers who name none. Default `main`.
    pub default_realm: Name,
    /// The tenant of callers who name none, outside strict mode.
    pub default_tenant: Option<Name>,
    /// The organisation of callers who name none in the default tenant, outside strict mode.
    pub default_org: Option<Name>,
    /// Whether nothing is guessed: no default tenant or organisation, and a tenant is required. Not set means: in
    /// the environment `production`.
    pub strict: Option<bool>,
    /// The realms. The default realm exists even when it is not listed.
    pub realms: BTreeMap<Name, RealmConfig>,
}

/// How many realms callers can be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Everybody is in the default realm; credentials of another realm are refused.
    #[default]
    SingleRealm,
    /// Credentials name their realm.
    MultiRealm,
}

/// A realm: one identity provider, one set of tenants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RealmConfig {
    /// What holds in the whole realm.
    pub defaults: Defaults,
    /// Its tenants.
    pub tenants: BTreeMap<Name, TenantConfig>,
}

/// A tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TenantConfig {
    /// What holds in the whole tenant.
    pub defaults: Defaults,
    /// Whether nobody may enter for now.
    pub suspended: bool,
    /// Its organisations.
    pub orgs: BTreeMap<Name, OrgConfig>,
}

/// An organisation within a tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OrgConfig {
    /// What holds in the organisation.
    pub defaults: Defaults,
}

impl Default for TenancyConfig {
    #[expect(clippy::expect_used, reason = "`main` is a name, as a test shows")]
    fn default() -> Self {
        Self {
            strategy: Strategy::SingleRealm,
            default_realm: Name::new("main").expect("a constant name"),
            default_tenant: None,
            default_org: None,
            strict: None,
            realms: BTreeMap::new(),
        }
    }
}
