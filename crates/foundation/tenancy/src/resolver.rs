//! Whose data a piece of work touches: the claim decides, the header narrows, strict mode guesses nothing.

use std::sync::Arc;

use runtime_kernel::{Name, Principal, Reach, TenantContext};

use crate::config::{Defaults, Strategy, TenancyConfig};
use crate::directory::{Directory, Realm, Tenant};
use crate::error::TenancyError;
use crate::hints::TenantHints;

/// Decides where work belongs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TenantResolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: TenancyConfig,
    strict: bool,
    directory: Directory,
}

/// What the work needs to know of its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requires {
    /// A tenant in strict mode, except from a principal that may go everywhere: an operator's work may be the
    /// installation's own. Otherwise at least a realm.
    #[default]
    Usual,
    /// A realm is enough, in strict mode too.
    Realm,
    /// A tenant.
    Tenant,
    /// A tenant and an organisation in it.
    Org,
}

/// A place, and what holds there.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The place.
    pub context: TenantContext,
    /// The defaults of realm, tenant and organisation, the deeper ones winning.
    pub defaults: Arc<Defaults>,
}

impl TenantResolver {
    /// Checks that the default places exist. `strict` decides when the configuration does not.
    ///
    /// # Errors
    /// [`TenancyError::UnknownRealm`], [`TenancyError::UnknownTenant`], [`TenancyError::UnknownOrg`] or
    /// [`TenancyError::OrgWithoutTenant`] for a default that does not exist; they end a process with the exit codes
    /// 20 to 23.
    pub fn new(config: TenancyConfig, strict: bool) -> Result<Self, TenancyError> {
        if !config.realms.is_empty() && !config.realms.contains_key(&config.default_realm) {
            return Err(TenancyError::UnknownRealm);
        }
        let directory = Directory::new(&config);
        let realm = directory.realm(&config.default_realm).ok_or(TenancyError::UnknownRealm)?;
        match (&config.default_tenant, &config.default_org) {
            (None, Some(_)) => return Err(TenancyError::OrgWithoutTenant),
            (Some(tenant), org) => {
                let tenant = realm.tenants.get(tenant).ok_or(TenancyError::UnknownTenant)?;
                if org.as_ref().is_some_and(|org| !tenant.orgs.contains_key(org)) {
                    return Err(TenancyError::UnknownOrg);
                }
            }
            (None, None) => {}
        }
        let strict = config.strict.unwrap_or(strict);
        Ok(Self(Arc::new(Inner { config, strict, directory })))
    }

    /// Whether nothing is guessed.
    pub fn is_strict(&self) -> bool {
        self.0.strict
    }

    /// Finds the place of a caller's work.
    ///
    /// 1. A realm, tenant or organisation named by the credentials is where the caller is.
    /// 2. A hint must lie within what the credentials allow: it equals the claim, or the principal's
    ///    [`Reach`] covers it, or it names an organisation of a tenant the caller has whole.
    /// 3. Outside strict mode the configured defaults fill what neither names. A principal with a list of tenants
    ///    gets the default tenant only if it is on the list.
    /// 4. What does not exist is forbidden, except to those whose reach would cover it.
    ///
    /// # Errors
    /// [`TenancyError`], each variant with its rule.
    pub fn resolve(
        &self,
        principal: Option<&Principal>,
        hints: &TenantHints,
        requires: Requires,
    ) -> Result<Resolved, TenancyError> {
        let caller = Caller { config: &self.0.config, strict: self.0.strict, principal };
        caller.check_claims()?;
        let (realm_name, realm) = self.realm(&caller, hints)?;
        let home = caller.home_realm().is_some_and(|home| *home == realm_name);
        let tenant = caller.tenant(&realm_name, realm, home, hints)?;
        let org = caller.org(&realm_name, tenant.as_ref(), home, hints)?;
        let needs_tenant = match requires {
            Requires::Usual => self.0.strict && !caller.everywhere(),
            Requires::Realm => false,
            Requires::Tenant | Requires::Org => true,
        };
        if needs_tenant && tenant.is_none() {
            return Err(TenancyError::Required);
        }
        if requires == Requires::Org && org.is_none() {
            return Err(TenancyError::OrgRequired);
        }
        let defaults = match (&org, &tenant) {
            (Some((_, defaults)), _) => defaults,
            (None, Some((_, tenant))) => &tenant.defaults,
            (None, None) => &realm.defaults,
        };
        Ok(Resolved {
            defaults: Arc::clone(defaults),
            context: TenantContext {
                realm: realm_name,
                tenant: tenant.map(|(name, _)| name),
                org: org.map(|(name, _)| name),
            },
        })
    }

    fn realm(&self, caller: &Caller<'_>, hints: &TenantHints) -> Result<(Name, &Realm), TenancyError> {
        let home = caller.home_realm();
        let single = caller.config.strategy == Strategy::SingleRealm;
        let name = match (&hints.realm, home) {
            (Some(asked), Some(home)) if asked == home => asked,
            (Some(asked), _) if caller.everywhere() && !single => asked,
            (Some(_), _) => return Err(TenancyError::Forbidden),
            (None, Some(home)) => home,
            (None, None) => return Err(TenancyError::Required),
        };
        match self.0.directory.realm(name) {
            Some(realm) => Ok((name.clone(), realm)),
            None if caller.everywhere() => Err(TenancyError::UnknownRealm),
            None => Err(TenancyError::Forbidden),
        }
    }
}

/// One caller's claims and reach, as the rules read them.
struct Caller<'a> {
    config: &'a TenancyConfig,
    strict: bool,
    principal: Option<&'a Principal>,
}

impl<'a> Caller<'a> {
    fn check_claims(&self) -> Result<(), TenancyError> {
        let Some(principal) = self.principal else { return Ok(()) };
        if principal.org.is_some() && principal.tenant.is_none() {
            return Err(TenancyError::OrgWithoutTenant);
        }
        let foreign = principal.realm.as_ref().is_some_and(|realm| *realm != self.config.default_realm);
        if self.config.strategy == Strategy::SingleRealm && foreign {
            return Err(TenancyError::Forbidden);
        }
        Ok(())
    }

    fn everywhere(&self) -> bool {
        self.principal.is_some_and(|principal| principal.reach == Reach::Everywhere)
    }

    /// The realm the credentials belong to. With several realms, strict mode does not guess it.
    fn home_realm(&self) -> Option<&'a Name> {
        let claim = self.principal.and_then(|principal| principal.realm.as_ref());
        let guess = self.config.strategy == Strategy::SingleRealm || !self.strict;
        claim.or_else(|| guess.then_some(&self.config.default_realm))
    }

    fn claim(&self, home: bool) -> Option<&'a Name> {
        self.principal.filter(|_| home).and_then(|principal| principal.tenant.as_ref())
    }

    /// Whether the principal's reach covers a tenant, its own claim aside.
    fn reaches(&self, tenant: &Name, home: bool) -> bool {
        match self.principal.map(|principal| &principal.reach) {
            Some(Reach::Everywhere) => true,
            Some(Reach::Realm) => home,
            Some(Reach::Tenants(tenants)) => home && tenants.contains(tenant),
            Some(Reach::Claimed) | None => false,
        }
    }

    /// The default tenant, where the rules let it fill a gap.
    fn default_tenant(&self, realm: &Name, home: bool) -> Option<&'a Name> {
        let tenant = self.config.default_tenant.as_ref()?;
        let applies =
            !self.strict && home && *realm == self.config.default_realm && self.claim(home).is_none();
        let unlimited = self.principal.is_none_or(|principal| principal.reach == Reach::Claimed);
        (applies && (unlimited || self.reaches(tenant, home))).then_some(tenant)
    }

    fn tenant<'d>(
        &self,
        realm_name: &Name,
        realm: &'d Realm,
        home: bool,
        hints: &TenantHints,
    ) -> Result<Option<(Name, &'d Tenant)>, TenancyError> {
        let fallback = self.claim(home).or_else(|| self.default_tenant(realm_name, home));
        let name = match &hints.tenant {
            Some(asked) if fallback == Some(asked) || self.reaches(asked, home) => asked,
            Some(_) => return Err(TenancyError::Forbidden),
            None => match fallback {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        let everything =
            self.everywhere() || (home && self.principal.is_some_and(|p| p.reach == Reach::Realm));
        match realm.tenants.get(name) {
            Some(tenant) if tenant.suspended => Err(TenancyError::Suspended),
            Some(tenant) => Ok(Some((name.clone(), tenant))),
            None if everything => Err(TenancyError::UnknownTenant),
            None => Err(TenancyError::Forbidden),
        }
    }

    fn org<'d>(
        &self,
        realm: &Name,
        tenant: Option<&(Name, &'d Tenant)>,
        home: bool,
        hints: &TenantHints,
    ) -> Result<Option<(Name, &'d Arc<Defaults>)>, TenancyError> {
        let Some((tenant_name, tenant)) = tenant else {
            return if hints.org.is_some() { Err(TenancyError::OrgWithoutTenant) } else { Ok(None) };
        };
        let claimed = self.claim(home) == Some(tenant_name);
        let claim = self.principal.filter(|_| claimed).and_then(|principal| principal.org.as_ref());
        let guess = || {
            let applies = self.default_tenant(realm, home) == Some(tenant_name);
            self.config.default_org.as_ref().filter(|_| applies)
        };
        let fallback = claim.or_else(guess);
        // The tenant is the caller's as a whole: by reach, or by a claim that names no organisation.
        let whole = self.reaches(tenant_name, home) || (claimed && claim.is_none());
        let name = match (&hints.org, fallback) {
            (Some(asked), fallback) if whole || fallback == Some(asked) => asked,
            (Some(_), _) => return Err(TenancyError::Forbidden),
            (None, Some(name)) => name,
            (None, None) => return Ok(None),
        };
        match tenant.orgs.get(name) {
            Some(defaults) => Ok(Some((name.clone(), defaults))),
            None if whole => Err(TenancyError::UnknownOrg),
            None => Err(TenancyError::Forbidden),
        }
    }
}
