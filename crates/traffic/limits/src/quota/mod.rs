//! How much of something a tenant may have, or use up in a day or month.

mod config;
#[cfg(feature = "testkit")]
pub mod laws;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrations;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use config::{Period, QuotaConfig};
pub use memory::MemoryQuotas;
use runtime_kernel::{Classify, Error, ErrorKind, SharedClock, TenantContext, Timestamp};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlQuotas;
pub use store::{Account, QuotaStore};

use crate::error::LimitsError;

/// Quotas by name, for every tenant. Cloning shares them.
///
/// ```
/// use std::sync::Arc;
/// use runtime_kernel::{Name, SystemClock, TenantContext};
/// use runtime_limits::{MemoryQuotas, QuotaConfig, Quotas};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let quotas = [("storage_bytes".to_owned(), QuotaConfig::standing(1_000))].into();
/// let quotas = Quotas::new(Arc::new(MemoryQuotas::new()), quotas, SystemClock::shared())?;
/// let acme = TenantContext::tenant(Name::new("main")?, Name::new("acme")?);
///
/// assert_eq!(quotas.take(&acme, "storage_bytes", 600).await?.left(), 400);
/// assert!(quotas.take(&acme, "storage_bytes", 401).await.is_err());
/// quotas.release(&acme, "storage_bytes", 600).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Quotas {
    store: Arc<dyn QuotaStore>,
    named: Arc<BTreeMap<String, QuotaConfig>>,
    clock: SharedClock,
}

/// Where a tenant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How much is taken.
    pub used: u64,
    /// How much may be.
    pub limit: u64,
    /// When it begins anew; never for a standing quota.
    pub resets_at: Option<Timestamp>,
}

impl Usage {
    /// How much more may be taken. 0 also when the limit has been lowered below what is taken.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// Why nothing was taken or given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// It would be more than the tenant may have. Nothing was taken.
    #[error("quota `{name}` exceeded: {asked} were asked for, {} of {} are taken", .usage.used, .usage.limit)]
    Exceeded {
        /// Which quota.
        name: String,
        /// How much was asked for.
        asked: u64,
        /// Where the tenant stands.
        usage: Usage,
    },
    /// More was to be given back than is taken. Nothing was given back.
    #[error("{released} of quota `{name}` cannot be given back: {used} are taken")]
    NotTaken {
        /// Which quota.
        name: String,
        /// How much was to be given back.
        released: u64,
        /// How much is taken.
        used: u64,
    },
    /// There is no such quota.
    #[error("there is no quota `{0}`")]
    Unknown(String),
    /// The store failed.
    #[error("quotas cannot be kept")]
    Store(#[source] Error),
}

impl Classify for QuotaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Exceeded { usage: Usage { resets_at: Some(_), .. }, .. } => ErrorKind::RateLimited,
            Self::Exceeded { .. } => ErrorKind::Forbidden,
            Self::NotTaken { .. } => ErrorKind::Conflict,
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::Store(error) => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Exceeded { .. } => "quota.exceeded",
            Self::NotTaken { .. } => "quota.not_taken",
            Self::Unknown(_) => "quota.unknown",
            Self::Store(error) => error.code(),
        }
    }
}

runtime_kernel::into_error!(QuotaError);

impl Quotas {
    /// Quotas by name over a store.
    ///
    /// # Errors
    /// [`LimitsError`] names the key that is wrong.
    pub fn new(
        store: Arc<dyn QuotaStore>,
        quotas: BTreeMap<String, QuotaConfig>,
        clock: SharedClock,
    ) -> Result<Self, LimitsError> {
        for (name, quota) in &quotas {
            quota.check(name)?;
        }
        Ok(Self { store, named: Arc::new(quotas), clock })
    }

    /// Takes so much, all or nothing. Racing callers never take more than the limit between them.
    ///
    /// # Errors
    /// [`QuotaError::Exceeded`], [`QuotaError::Unknown`], [`QuotaError::Store`].
    pub async fn take(&self, tenant: &TenantContext, name: &str, amount: u64) -> Result<Usage, QuotaError> {
        let (account, mut usage) = self.account(tenant, name)?;
        match self.store.take(&account, amount, usage.limit).await.map_err(QuotaError::Store)? {
            Ok(used) => {
                usage.used = used;
                Ok(usage)
            }
            Err(used) => {
                usage.used = used;
                Err(QuotaError::Exceeded { name: name.to_owned(), asked: amount, usage })
            }
        }
    }

    /// Gives back so much of what was taken in the present period.
    ///
    /// # Errors
    /// [`QuotaError::NotTaken`], [`QuotaError::Unknown`], [`QuotaError::Store`].
    pub async fn release(
        &self,
        tenant: &TenantContext,
        name: &str,
        amount: u64,
    ) -> Result<Usage, QuotaError> {
        let (account, usage) = self.account(tenant, name)?;
        match self.store.release(&account, amount).await.map_err(QuotaError::Store)? {
            Ok(used) => Ok(Usage { used, ..usage }),
            Err(used) => Err(QuotaError::NotTaken { name: name.to_owned(), released: amount, used }),
        }
    }

    /// Where a tenant stands.
    ///
    /// # Errors
    /// [`QuotaError::Unknown`], [`QuotaError::Store`].
    pub async fn usage(&self, tenant: &TenantContext, name: &str) -> Result<Usage, QuotaError> {
        let (account, usage) = self.account(tenant, name)?;
        let used = self.store.used(&account).await.map_err(QuotaError::Store)?;
        Ok(Usage { used, ..usage })
    }

    /// The names there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    fn account(&self, tenant: &TenantContext, name: &str) -> Result<(Account, Usage), QuotaError> {
        let quota = self.named.get(name).ok_or_else(|| QuotaError::Unknown(name.to_owned()))?;
        let tenant = tenant.namespace();
        let limit = quota.tenants.get(&tenant).copied().unwrap_or(quota.limit);
        let (period, resets_at) = quota.per.span(self.clock.utc());
        let account = Account { tenant, name: name.to_owned(), period };
        Ok((account, Usage { used: 0, limit, resets_at }))
    }
}
