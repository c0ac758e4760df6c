//! Why a caller is let into no tenant.

use runtime_kernel::{Classify, ErrorKind};

/// Why resolution refused.
///
/// A caller that may not enter a place learns the same whether the place exists or not, and no answer lists what
/// there is. The names in angle brackets are Athyper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TenancyError {
    /// Not within what the caller's credentials allow, or not there.
    #[error("these credentials do not reach the realm, tenant or organisation asked for")]
    Forbidden,
    /// The tenant exists and the caller belongs there, but it is suspended.
    #[error("the tenant is suspended")]
    Suspended,
    /// A tenant is required and nothing names one (`TENANT_CONTEXT_REQUIRED`).
    #[error("a tenant is required: use credentials of a tenant, or name one within their reach")]
    Required,
    /// An organisation is required and nothing names one.
    #[error("an organisation is required")]
    OrgRequired,
    /// No such realm, told to those who may enter every realm (`UNKNOWN_REALM`).
    #[error("there is no such realm")]
    UnknownRealm,
    /// No such tenant, told to those who may enter every tenant of the realm (`UNKNOWN_TENANT`).
    #[error("there is no such tenant")]
    UnknownTenant,
    /// No such organisation, told to those who may enter every organisation of the tenant (`UNKNOWN_ORG`).
    #[error("there is no such organisation")]
    UnknownOrg,
    /// An organisation was named without its tenant (`ORG_WITHOUT_TENANT`).
    #[error("an organisation needs its tenant")]
    OrgWithoutTenant,
    /// A header is blank, given twice, or not a name.
    #[error("the header `{0}` must be given once and hold one name")]
    Header(&'static str),
}

impl Classify for TenancyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Forbidden | Self::Suspended => ErrorKind::Forbidden,
            Self::Required | Self::OrgRequired | Self::OrgWithoutTenant | Self::Header(_) => {
                ErrorKind::Invalid
            }
            Self::UnknownRealm | Self::UnknownTenant | Self::UnknownOrg => ErrorKind::NotFound,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Forbidden => "tenancy.forbidden",
            Self::Suspended => "tenancy.suspended",
            Self::Required => "tenancy.required",
            Self::OrgRequired => "tenancy.org_required",
            Self::UnknownRealm => "tenancy.unknown_realm",
            Self::UnknownTenant => "tenancy.unknown_tenant",
            Self::UnknownOrg => "tenancy.unknown_org",
            Self::OrgWithoutTenant => "tenancy.org_without_tenant",
            Self::Header(_) => "tenancy.header",
        }
    }
}

runtime_kernel::into_error!(TenancyError);
