//! Where quotas are kept: the port every backend implements.

use std::fmt;

use async_trait::async_trait;
use runtime_kernel::Error;

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The tenant, `realm/tenant`.
    pub tenant: String,
    /// The quota's name.
    pub name: String,
    /// When the period began, in seconds since 1970; 0 for a standing quota.
    pub period: i64,
}

/// Where quotas are kept. Every backend passes the laws (feature `testkit`, module `quota_laws`).
#[async_trait]
pub trait QuotaStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `amount` if that is no more than `limit` in all. How much is taken then, or, as an error inside, how much is
    /// taken and leaves too little.
    ///
    /// Of the account's earlier periods all but the last may be forgotten. That one is kept, for clocks differ and are
    /// put back: who still is in it is not granted it anew.
    ///
    /// # Errors
    /// The store failed; whether it was taken is not known.
    async fn take(&self, account: &Account, amount: u64, limit: u64) -> Result<Result<u64, u64>, Error>;

    /// Subtracts `amount` if so much is taken. How much is taken then, or, as an error inside, how much is.
    ///
    /// # Errors
    /// The store failed; whether it was given back is not known.
    async fn release(&self, account: &Account, amount: u64) -> Result<Result<u64, u64>, Error>;

    /// How much is taken.
    ///
    /// # Errors
    /// The store failed.
    async fn used(&self, account: &Account) -> Result<u64, Error>;
}
