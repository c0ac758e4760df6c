//! Whose data this is: realm, tenant and organisation keys.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A realm's, tenant's or organisation's key: 1 to 63 of `a-z A-Z 0-9 _ . -`, first a letter or digit.
///
/// The alphabet leaves out `/` and `:`, so keys joined by them cannot collide.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Text that cannot be a [`Name`]. Does not repeat the text: it may come from an anonymous caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a realm, tenant or organisation key is 1 to 63 letters, digits, `_`, `.` or `-`, first a letter or digit"
)]
pub struct NameError;

impl Name {
    /// Checks and takes a key.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or uses another character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() <= 63 && text.bytes().all(alphabet) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NameError)
        }
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

/// Where work belongs: always a realm, mostly a tenant, sometimes an organisation within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TenantContext {
    /// The realm: one identity provider, one set of tenants.
    pub realm: Name,
    /// The tenant, unless the work belongs to the realm itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// The organisation inside the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<Name>,
}

impl TenantContext {
    /// Work of a realm as a whole.
    pub fn realm(realm: Name) -> Self {
        Self { realm, tenant: None, org: None }
    }

    /// Work of a tenant.
    pub fn tenant(realm: Name, tenant: Name) -> Self {
        Self { realm, tenant: Some(tenant), org: None }
    }

    /// The tenant's own prefix for keys of rows, caches, limits and blobs: `realm/tenant`, or `realm/` for the
    /// realm itself. No two tenants share one, because keys cannot contain `/`.
    pub fn namespace(&self) -> String {
        let tenant = self.tenant.as_ref().map_or("", Name::as_str);
        format!("{}/{tenant}", self.realm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for (text, ok) in [
            ("acme", true),
            ("A.b_c-9", true),
            ("", false),
            ("-x", false),
            (".x", false),
            ("a/b", false),
            ("a:b", false),
            (" a", false),
            ("ü", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(Name::new(text).is_ok(), ok, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_tenants_share_a_namespace(a in ("[a-z.]{1,3}", proptest::option::of("[a-z]{1,3}")), b in ("[a-z.]{1,3}", proptest::option::of("[a-z]{1,3}"))) {
            let make = |(realm, tenant): &(String, Option<String>)| Some(TenantContext {
                realm: Name::new(realm).ok()?,
                tenant: match tenant { Some(t) => Some(Name::new(t).ok()?), None => None },
                org: None,
            });
            if let (Some(a), Some(b)) = (make(&a), make(&b)) {
                prop_assert_eq!(a == b, a.namespace() == b.namespace());
            }
        }
    }
}
