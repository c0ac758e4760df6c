//! One directory for all tests: realm `main` with acme (berlin, paris), globex (oslo) and closed; realm `lab` with acme.

use runtime_kernel::{Name, Principal, PrincipalKind, Reach};
use runtime_tenancy::{Requires, TenancyConfig, TenancyError, TenantHints, TenantResolver};
use serde_json::json;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn config(multi: bool, strict: bool, tenant: Option<&str>, org: Option<&str>) -> TenancyConfig {
    serde_json::from_value(json!({
        "strategy": if multi { "multi_realm" } else { "single_realm" },
        "strict": strict,
        "default_tenant": tenant,
        "default_org": org,
        "realms": {
            "main": { "tenants": {
                "acme": { "orgs": { "berlin": {}, "paris": {} } },
                "globex": { "orgs": { "oslo": {} } },
                "closed": { "suspended": true },
            } },
            "lab": { "tenants": { "acme": {} } },
        },
    }))
    .unwrap()
}

pub fn resolver(multi: bool, strict: bool, tenant: Option<&str>, org: Option<&str>) -> TenantResolver {
    TenantResolver::new(config(multi, strict, tenant, org), false).unwrap()
}

/// A place as `realm/tenant/org`, `-` for none.
fn parts(text: &str) -> [Option<Name>; 3] {
    let mut parts = text.split('/').map(|part| (part != "-").then(|| name(part)));
    std::array::from_fn(|_| parts.next().flatten())
}

pub fn principal(claims: &str, reach: Reach) -> Principal {
    let mut principal = Principal::new(PrincipalKind::User, "u");
    [principal.realm, principal.tenant, principal.org] = parts(claims);
    principal.reach = reach;
    principal
}

pub fn hints(text: &str) -> TenantHints {
    let [realm, tenant, org] = parts(text);
    TenantHints { realm, tenant, org }
}

pub fn resolve(
    resolver: &TenantResolver,
    principal: Option<&Principal>,
    asked: &str,
    requires: Requires,
) -> Result<String, TenancyError> {
    resolver.resolve(principal, &hints(asked), requires).map(|resolved| {
        let text = |name: Option<&Name>| name.map_or("-".to_owned(), ToString::to_string);
        let place = resolved.context;
        format!("{}/{}/{}", place.realm, text(place.tenant.as_ref()), text(place.org.as_ref()))
    })
}
