//! A key as lists show it: everything but the secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Name, Principal, PrincipalKind, Reach, Timestamp};
use runtime_secrets::SecretString;
use serde::{Deserialize, Serialize};

runtime_kernel::id!(KeyId, "A key's id. Rotation keeps it, so what is counted or owned by id stays so.");

/// A key without its secret. `Display` is `rt_…abcd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ApiKey {
    /// Names the key; becomes the principal's id.
    pub id: KeyId,
    /// What it is for, in the owner's words.
    pub description: String,
    /// The part between `rt_` and the key, such as `live`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The last four characters of the present secret's text.
    pub hint: String,
    /// What it may do, as `area:verb`; `*` is everything.
    pub scopes: Vec<Arc<str>>,
    /// The realm it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<Name>,
    /// The tenant it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// The organisation it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<Name>,
    /// Which other tenants it may enter.
    #[serde(default)]
    pub reach: Reach,
    /// Limits declared for this key. Kept and handed on; a rate limiter enforces them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// It does not hold before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// It does not hold from this on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, give or take the interval at which uses are written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// When its secret was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// Until when the secret before the present one holds too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_until: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_reason: Option<String>,
}

/// So many requests per so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How many requests.
    pub requests: u32,
    /// In how much time.
    #[serde(with = "runtime_kernel::units::duration")]
    pub per: Duration,
}

/// What a key is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyState {
    /// It holds.
    Active,
    /// Its time has not come.
    Pending,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl KeyState {
    /// The state in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl ApiKey {
    /// What the key is at a moment.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked_at.is_some() {
            return KeyState::Revoked;
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return KeyState::Expired;
        }
        if self.not_before.is_some_and(|start| now < start) {
            return KeyState::Pending;
        }
        KeyState::Active
    }

    /// Who a request with this key acts as.
    pub fn principal(&self) -> Principal {
        let mut principal = Principal::new(PrincipalKind::Service, self.id.to_string());
        principal.scopes.clone_from(&self.scopes);
        principal.realm.clone_from(&self.realm);
        principal.tenant.clone_from(&self.tenant);
        principal.org.clone_from(&self.org);
        principal.reach.clone_from(&self.reach);
        principal
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rt_")?;
        if let Some(env) = &self.env {
            write!(f, "{env}_")?;
        }
        write!(f, "…{}", self.hint)
    }
}

/// What a key shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NewKey {
    /// What it is for: at most 200 characters.
    pub description: String,
    /// Overrides the configured `env`, the part between `rt_` and the key.
    pub env: Option<String>,
    /// What it may do: at most 64 scopes of at most 128 visible characters.
    pub scopes: Vec<Arc<str>>,
    /// The realm it belongs to.
    pub realm: Option<Name>,
    /// The tenant it belongs to; needs a realm.
    pub tenant: Option<Name>,
    /// The organisation it belongs to; needs a tenant.
    pub org: Option<Name>,
    /// Which other tenants it may enter.
    pub reach: Reach,
    /// Limits declared for it.
    pub limits: Option<Limits>,
    /// Who makes it.
    pub created_by: Option<String>,
    /// It shall not hold before this.
    pub not_before: Option<Timestamp>,
    /// It shall not hold from this on.
    pub expires_at: Option<Timestamp>,
}

impl NewKey {
    /// A key for a purpose, with scopes, bound to nothing.
    pub fn new<S: Into<Arc<str>>>(
        description: impl Into<String>,
        scopes: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            description: description.into(),
            scopes: scopes.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// A key just made: the one moment its plain text exists.
pub struct IssuedKey {
    /// The key, as lists will show it.
    pub key: ApiKey,
    text: SecretString,
}

impl IssuedKey {
    pub(crate) fn new(key: ApiKey, text: SecretString) -> Self {
        Self { key, text }
    }

    /// The plain text, to be handed to its owner once and kept nowhere.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The plain text, still guarded.
    pub fn into_secret(self) -> SecretString {
        self.text
    }
}

impl fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedKey").field("key", &self.key).finish_non_exhaustive()
    }
}
