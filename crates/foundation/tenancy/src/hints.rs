//! Where a caller asks to go, before anybody has agreed.

use runtime_kernel::Name;

use crate::error::TenancyError;

/// The headers, outermost first.
pub const HEADERS: [&str; 3] = ["x-realm", "x-tenant", "x-org"];

/// A caller's wish. It can only narrow what the caller's credentials allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantHints {
    /// The realm asked for.
    pub realm: Option<Name>,
    /// The tenant asked for.
    pub tenant: Option<Name>,
    /// The organisation asked for.
    pub org: Option<Name>,
}

impl TenantHints {
    /// Reads the hints from headers: `values(name)` gives every value of the header of that name.
    ///
    /// Values are taken as they are: nothing is trimmed, split at commas or skipped when blank, so that what is
    /// checked here is what any other reader of the request sees.
    ///
    /// # Errors
    /// [`TenancyError::Header`] for a header that is blank, given twice or not a [`Name`].
    pub fn from_headers<'h, I>(mut values: impl FnMut(&'static str) -> I) -> Result<Self, TenancyError>
    where
        I: Iterator<Item = &'h [u8]>,
    {
        let mut one = |header: &'static str| {
            let mut values = values(header);
            let Some(value) = values.next() else { return Ok(None) };
            let text = std::str::from_utf8(value).ok().filter(|_| values.next().is_none());
            let name = text.and_then(|text| Name::new(text).ok());
            name.map(Some).ok_or(TenancyError::Header(header))
        };
        let [realm, tenant, org] = HEADERS;
        Ok(Self { realm: one(realm)?, tenant: one(tenant)?, org: one(org)? })
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.realm.is_none() && self.tenant.is_none() && self.org.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_one_name_or_a_refusal() {
        let read = |tenants: &[&'static str]| {
            let tenants: Vec<&[u8]> = tenants.iter().map(|text| text.as_bytes()).collect();
            TenantHints::from_headers(|header| {
                if header == "x-tenant" { tenants.clone().into_iter() } else { Vec::new().into_iter() }
            })
            .map(|hints| hints.tenant.map(|name| name.to_string()))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["acme"]), Ok(Some("acme".to_owned())));
        assert_eq!(read(&["constructor"]), Ok(Some("constructor".to_owned())), "a name like any other");
        for bad in [
            &[""][..],
            &[" "],
            &[" acme"],
            &["acme "],
            &["acme,globex"],
            &["acme", "acme"],
            &["", "acme"],
            &["a/b"],
        ] {
            assert_eq!(read(bad), Err(TenancyError::Header("x-tenant")), "{bad:?}");
        }
    }
}
