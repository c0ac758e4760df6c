//! Every combination of claim, header, default, reach, strictness and strategy, against the law in other words.

use proptest::prelude::*;
use proptest::sample::select;
use runtime_kernel::{Name, Principal, Reach};
use runtime_tenancy::{Requires, Resolved, TenancyError, TenantHints, TenantResolver};

use super::support::{name, principal, resolver};

const REALMS: [Option<&str>; 4] = [None, Some("main"), Some("lab"), Some("nowhere")];
const TENANTS: [Option<&str>; 5] = [None, Some("acme"), Some("globex"), Some("closed"), Some("nowhere")];
const ORGS: [Option<&str>; 4] = [None, Some("berlin"), Some("paris"), Some("nowhere")];

fn reaches() -> Vec<Reach> {
    let list = |names: &[&str]| Reach::Tenants(names.iter().map(|text| name(text)).collect());
    vec![Reach::Claimed, list(&["acme"]), list(&["globex", "nowhere"]), Reach::Realm, Reach::Everywhere]
}

fn place(parts: [Option<&str>; 3]) -> String {
    parts.map(|part| part.unwrap_or("-")).join("/")
}

/// What a principal may ever enter: its claim, its reach, and outside strict mode the default.
fn within(resolver: &Resolved, who: &Principal, multi: bool, strict: bool, default: Option<&str>) -> bool {
    let at = &resolver.context;
    if who.reach == Reach::Everywhere {
        return multi || at.realm.as_str() == "main";
    }
    let home = who.realm.as_ref().map_or("main", Name::as_str);
    if at.realm.as_str() != home || (!multi && home != "main") {
        return false;
    }
    let Some(tenant) = &at.tenant else { return at.org.is_none() };
    let claimed = who.tenant.as_ref() == Some(tenant);
    let reached = match &who.reach {
        Reach::Realm => true,
        Reach::Tenants(list) => list.contains(tenant),
        _ => false,
    };
    let guessed = !strict
        && who.tenant.is_none()
        && who.reach == Reach::Claimed
        && home == "main"
        && default == Some(tenant.as_str());
    let org_held = reached || who.org.is_none() || who.org == at.org;
    (claimed && org_held) || reached || guessed
}

fn exists(resolved: &Resolved) -> bool {
    let at = &resolved.context;
    let tenant = at.tenant.as_ref().map(Name::as_str);
    matches!(
        (at.realm.as_str(), tenant, at.org.as_ref().map(Name::as_str)),
        ("main" | "lab", None, None)
            | ("main", Some("acme"), None | Some("berlin" | "paris"))
            | ("main", Some("globex"), None | Some("oslo"))
            | ("lab", Some("acme"), None)
    )
}

fn obeys(
    rules: &TenantResolver,
    who: &Principal,
    asked: &TenantHints,
    (multi, strict, default): (bool, bool, Option<&str>),
) -> Result<bool, String> {
    let found = rules.resolve(Some(who), asked, Requires::Usual);
    let law = |holds: bool, law: &str| if holds { Ok(()) } else { Err(format!("{law}: {found:?}")) };
    let Ok(resolved) = &found else { return Ok(false) };
    law(within(resolved, who, multi, strict, default), "outside the principal's reach")?;
    law(exists(resolved), "nowhere")?;
    let operator = who.reach == Reach::Everywhere;
    law(!strict || operator || resolved.context.tenant.is_some(), "strict without a tenant")?;
    let at = &resolved.context;
    law(asked.realm.as_ref().is_none_or(|realm| *realm == at.realm), "another realm than asked for")?;
    law(asked.tenant.is_none() || asked.tenant == at.tenant, "another tenant than asked for")?;
    law(asked.org.is_none() || asked.org == at.org, "another organisation than asked for")?;
    Ok(true)
}

#[test]
fn whatever_is_claimed_and_asked_the_place_is_within_reach() {
    let (mut served, mut refused) = (0, 0);
    for multi in [false, true] {
        for strict in [false, true] {
            for default in [None, Some("acme"), Some("globex")] {
                let rules = resolver(multi, strict, default, None);
                for reach in reaches() {
                    for claims in REALMS.iter().flat_map(|r| TENANTS.map(|t| [*r, t, None])) {
                        for claim_org in [None, Some("berlin")] {
                            let who = principal(&place([claims[0], claims[1], claim_org]), reach.clone());
                            for realm in REALMS {
                                for tenant in TENANTS {
                                    for org in ORGS {
                                        let asked = super::support::hints(&place([realm, tenant, org]));
                                        match obeys(&rules, &who, &asked, (multi, strict, default)) {
                                            Ok(true) => served += 1,
                                            Ok(false) => refused += 1,
                                            Err(law) => panic!(
                                                "{law}\n{who:?}\n{asked:?} multi {multi} strict {strict} default {default:?}"
                                            ),
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(served + refused, 2 * 2 * 3 * 5 * 20 * 2 * 80);
    assert!(served > 2_000, "{served} of {refused}");
}

#[test]
fn those_without_reach_cannot_tell_what_exists() {
    for strict in [false, true] {
        let rules = resolver(true, strict, None, None);
        for reach in [Reach::Claimed, Reach::Tenants(vec![name("globex")])] {
            let who = principal("main/acme/berlin", reach);
            for (real, made_up) in
                [("lab/-/-", "nowhere/-/-"), ("-/closed/-", "-/nowhere/-"), ("-/-/paris", "-/-/nowhere")]
            {
                let ask =
                    |asked: &str| rules.resolve(Some(&who), &super::support::hints(asked), Requires::Usual);
                assert_eq!(ask(real), ask(made_up));
                assert_eq!(ask(real), Err(TenancyError::Forbidden), "{real}");
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_names_are_no_way_in(claim in select(vec!["acme", "globex"]), asked in "[A-Za-z0-9][A-Za-z0-9_.-]{0,20}") {
        let rules = resolver(false, true, None, None);
        let who = principal(&format!("-/{claim}"), Reach::Claimed);
        let hints = TenantHints { tenant: Some(name(&asked)), ..TenantHints::default() };
        let found = rules.resolve(Some(&who), &hints, Requires::Usual);
        prop_assert_eq!(found.is_ok(), asked == claim);
    }
}
