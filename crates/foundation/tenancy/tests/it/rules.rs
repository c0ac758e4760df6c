use runtime_kernel::{Classify, ErrorKind, Reach};
use runtime_tenancy::{Requires, TenancyError as E, TenantResolver};

use super::support::{config, name, principal, resolve, resolver};

fn list(names: &[&str]) -> Reach {
    Reach::Tenants(names.iter().map(|text| name(text)).collect())
}

#[test]
fn a_header_narrows_and_never_widens() {
    use Reach::{Claimed, Everywhere, Realm};
    // claims, reach, header, strict, default tenant and org -> place
    let cases: &[(&str, Reach, &str, bool, &str, Result<&str, E>)] = &[
        // The claim decides.
        ("main/acme", Claimed, "-/-/-", true, "-", Ok("main/acme/-")),
        ("-/acme", Claimed, "-/-/-", true, "-", Ok("main/acme/-")),
        ("-/acme", Claimed, "-/-/-", false, "globex", Ok("main/acme/-")),
        ("-/acme", Claimed, "main/acme/-", true, "-", Ok("main/acme/-")),
        // Claim acme, header globex: refused, not served.
        ("-/acme", Claimed, "-/globex/-", true, "-", Err(E::Forbidden)),
        ("-/acme", Claimed, "-/globex/-", false, "globex", Err(E::Forbidden)),
        ("-/acme", list(&["acme"]), "-/globex/-", true, "-", Err(E::Forbidden)),
        ("-/acme", list(&["globex"]), "-/globex/-", true, "-", Ok("main/globex/-")),
        ("-/acme", Realm, "-/globex/-", true, "-", Ok("main/globex/-")),
        ("-/acme", Everywhere, "-/globex/-", true, "-", Ok("main/globex/-")),
        // No claim: the header needs reach, whatever the mode.
        ("-/-", Claimed, "-/acme/-", true, "-", Err(E::Forbidden)),
        ("-/-", Claimed, "-/acme/-", false, "-", Err(E::Forbidden)),
        ("-/-", Claimed, "-/acme/-", false, "globex", Err(E::Forbidden)),
        ("-/-", Claimed, "-/globex/-", false, "globex", Ok("main/globex/-")),
        ("-/-", Claimed, "-/globex/-", true, "globex", Err(E::Forbidden)),
        ("-/-", list(&["acme"]), "-/acme/-", true, "-", Ok("main/acme/-")),
        // No claim, no header: defaults fill outside strict mode, within a list only.
        ("-/-", Claimed, "-/-/-", false, "globex", Ok("main/globex/-")),
        ("-/-", Claimed, "-/-/-", false, "acme/berlin", Ok("main/acme/berlin")),
        ("-/-", Claimed, "-/-/-", false, "-", Ok("main/-/-")),
        ("-/-", Claimed, "-/-/-", true, "globex", Err(E::Required)),
        ("-/-", list(&["acme"]), "-/-/-", false, "globex", Ok("main/-/-")),
        ("-/-", list(&["globex"]), "-/-/-", false, "globex", Ok("main/globex/-")),
        // What does not exist is forbidden, but to those who may enter everything.
        ("-/acme", Claimed, "-/nowhere/-", true, "-", Err(E::Forbidden)),
        ("-/acme", list(&["nowhere"]), "-/nowhere/-", true, "-", Err(E::Forbidden)),
        ("-/nowhere", Claimed, "-/-/-", true, "-", Err(E::Forbidden)),
        ("-/-", Claimed, "-/constructor/-", false, "-", Err(E::Forbidden)),
        ("-/-", Realm, "-/constructor/-", true, "-", Err(E::UnknownTenant)),
        ("-/-", Everywhere, "-/nowhere/-", true, "-", Err(E::UnknownTenant)),
        // Suspended, and told only to those who may enter.
        ("-/closed", Claimed, "-/-/-", true, "-", Err(E::Suspended)),
        ("-/acme", Realm, "-/closed/-", true, "-", Err(E::Suspended)),
        ("-/acme", Claimed, "-/closed/-", true, "-", Err(E::Forbidden)),
        // Organisations: a whole tenant narrows freely, one organisation stays.
        ("-/acme", Claimed, "-/-/paris", true, "-", Ok("main/acme/paris")),
        ("-/acme", Claimed, "-/-/nowhere", true, "-", Err(E::UnknownOrg)),
        ("-/acme/berlin", Claimed, "-/-/-", true, "-", Ok("main/acme/berlin")),
        ("-/acme/berlin", Claimed, "-/-/berlin", true, "-", Ok("main/acme/berlin")),
        ("-/acme/berlin", Claimed, "-/-/paris", true, "-", Err(E::Forbidden)),
        ("-/acme/berlin", Claimed, "-/-/nowhere", true, "-", Err(E::Forbidden)),
        ("-/acme/nowhere", Claimed, "-/-/-", true, "-", Err(E::Forbidden)),
        ("-/acme/berlin", Realm, "-/-/paris", true, "-", Ok("main/acme/paris")),
        ("-/acme/berlin", list(&["globex"]), "-/globex/-", true, "-", Ok("main/globex/-")),
        ("-/acme/berlin", list(&["globex"]), "-/globex/oslo", true, "-", Ok("main/globex/oslo")),
        ("-/acme", Claimed, "-/-/oslo", true, "-", Err(E::UnknownOrg)),
        ("-/-", Claimed, "-/-/berlin", false, "acme/berlin", Ok("main/acme/berlin")),
        ("-/-", Claimed, "-/-/paris", false, "acme/berlin", Err(E::Forbidden)),
        ("-/acme", Claimed, "-/-/-", false, "acme/berlin", Ok("main/acme/-")),
        // An organisation without its tenant.
        ("-/-", Claimed, "-/-/berlin", false, "-", Err(E::OrgWithoutTenant)),
        ("-/-/berlin", Claimed, "-/-/-", false, "acme", Err(E::OrgWithoutTenant)),
        // One realm: credentials and headers of another are refused.
        ("lab/acme", Claimed, "-/-/-", true, "-", Err(E::Forbidden)),
        ("-/acme", Everywhere, "lab/-/-", true, "-", Err(E::Forbidden)),
    ];
    for (claims, reach, header, strict, default, expected) in cases {
        let (tenant, org) =
            default.split_once('/').map_or((*default, None), |(tenant, org)| (tenant, Some(org)));
        let resolver = resolver(false, *strict, (tenant != "-").then_some(tenant), org);
        let principal = principal(claims, reach.clone());
        let found = resolve(&resolver, Some(&principal), header, Requires::Usual);
        let found = found.as_deref().map_err(|error| *error);
        assert_eq!(
            found, *expected,
            "claims {claims} {reach:?}, header {header}, strict {strict}, default {default}"
        );
    }
}

#[test]
fn with_several_realms_the_claim_decides_the_realm() {
    use Reach::{Claimed, Everywhere, Realm};
    let cases: &[(&str, Reach, &str, bool, Result<&str, E>)] = &[
        ("lab/acme", Claimed, "-/-/-", true, Ok("lab/acme/-")),
        ("lab/acme", Claimed, "lab/acme/-", true, Ok("lab/acme/-")),
        ("lab/acme", Claimed, "main/acme/-", true, Err(E::Forbidden)),
        ("lab/acme", Realm, "main/acme/-", true, Err(E::Forbidden)),
        ("lab/acme", Everywhere, "main/-/-", false, Ok("main/-/-")),
        ("lab/acme", Everywhere, "main/globex/-", true, Ok("main/globex/-")),
        ("lab/acme", Everywhere, "nowhere/-/-", true, Err(E::UnknownRealm)),
        ("lab/acme", Claimed, "nowhere/-/-", true, Err(E::Forbidden)),
        ("nowhere/acme", Claimed, "-/-/-", true, Err(E::Forbidden)),
        ("-/acme", Claimed, "-/-/-", true, Err(E::Required)),
        ("-/acme", Claimed, "-/-/-", false, Ok("main/acme/-")),
        ("-/acme", Claimed, "lab/-/-", false, Err(E::Forbidden)),
        // The default tenant belongs to the default realm.
        ("lab/-", Claimed, "-/-/-", false, Ok("lab/-/-")),
    ];
    for (claims, reach, header, strict, expected) in cases {
        let resolver = resolver(true, *strict, (!strict).then_some("globex"), None);
        let principal = principal(claims, reach.clone());
        let found = resolve(&resolver, Some(&principal), header, Requires::Usual);
        assert_eq!(
            found.as_deref().map_err(|e| *e),
            *expected,
            "claims {claims} {reach:?}, header {header}, strict {strict}"
        );
    }
}

#[test]
fn nobody_in_particular_gets_the_defaults_or_nothing() {
    let lenient = resolver(false, false, Some("globex"), None);
    assert_eq!(resolve(&lenient, None, "-/-/-", Requires::Usual).as_deref(), Ok("main/globex/-"));
    assert_eq!(resolve(&lenient, None, "-/acme/-", Requires::Usual), Err(E::Forbidden));
    assert_eq!(resolve(&lenient, None, "-/nowhere/-", Requires::Usual), Err(E::Forbidden));
    let strict = resolver(false, true, Some("globex"), None);
    assert_eq!(resolve(&strict, None, "-/-/-", Requires::Usual), Err(E::Required));
    assert_eq!(resolve(&strict, None, "-/globex/-", Requires::Usual), Err(E::Forbidden));
}

#[test]
fn a_route_gets_what_it_requires() {
    let nobody = principal("-/-", Reach::Claimed);
    let acme = principal("-/acme", Reach::Claimed);
    for (strict, who, requires, expected) in [
        (true, &nobody, Requires::Usual, Err(E::Required)),
        (true, &nobody, Requires::Realm, Ok("main/-/-")),
        (false, &nobody, Requires::Usual, Ok("main/-/-")),
        (false, &nobody, Requires::Tenant, Err(E::Required)),
        (false, &acme, Requires::Tenant, Ok("main/acme/-")),
        (false, &acme, Requires::Org, Err(E::OrgRequired)),
    ] {
        let found = resolve(&resolver(false, strict, None, None), Some(who), "-/-/-", requires);
        assert_eq!(found.as_deref().map_err(|e| *e), expected, "{strict} {requires:?}");
    }
}

#[test]
fn defaults_that_do_not_exist_are_refused_at_start_with_their_exit_codes() {
    let mut no_realm = config(false, false, None, None);
    no_realm.default_realm = name("nowhere");
    for (config, expected) in [
        (no_realm, E::UnknownRealm),
        (config(false, true, Some("nowhere"), None), E::UnknownTenant),
        (config(false, true, Some("acme"), Some("oslo")), E::UnknownOrg),
        (config(false, true, None, Some("oslo")), E::OrgWithoutTenant),
    ] {
        assert_eq!(TenantResolver::new(config, false).unwrap_err(), expected);
    }
    #[cfg(feature = "module")]
    for (error, code) in
        [(E::UnknownRealm, 20), (E::UnknownTenant, 21), (E::UnknownOrg, 22), (E::OrgWithoutTenant, 23)]
    {
        assert_eq!(runtime_kernel::app::exit_code(error.code()), code);
    }
}

#[test]
fn an_empty_configuration_has_one_realm() {
    let resolver = TenantResolver::new(runtime_tenancy::TenancyConfig::default(), false).unwrap();
    assert_eq!(resolve(&resolver, None, "-/-/-", Requires::Usual).as_deref(), Ok("main/-/-"));
    assert!(!resolver.is_strict());
}

#[test]
fn forbidden_is_403_and_lists_nothing() {
    assert_eq!(E::Forbidden.kind(), ErrorKind::Forbidden);
    assert_eq!(E::Forbidden.code(), "tenancy.forbidden");
    for error in [E::Forbidden, E::Required, E::UnknownTenant, E::UnknownRealm, E::UnknownOrg, E::Suspended] {
        for exists in ["acme", "globex", "closed", "lab"] {
            assert!(!error.to_string().contains(exists), "{error}");
        }
    }
}
