//! Quotas in memory, for tests and single processes that may forget.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime_kernel::Error;

use super::store::{Account, QuotaStore};

/// Quotas in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryQuotas {
    used: Arc<Mutex<BTreeMap<Account, u64>>>,
}

impl MemoryQuotas {
    /// Nothing taken.
    pub fn new() -> Self {
        Self::default()
    }

    fn change(&self, account: &Account, change: impl FnOnce(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.get(account).copied().unwrap_or(0);
        let next = change(used).ok_or(used)?;
        if next == 0 {
            all.remove(account);
        } else if all.insert(account.clone(), next).is_none() {
            let first = Account { period: i64::MIN, ..account.clone() };
            // The period before stays: a clock that is put back returns to it.
            let old: Vec<_> =
                all.range(first..account.clone()).rev().skip(1).map(|(account, _)| account.clone()).collect();
            for account in old {
                all.remove(&account);
            }
        }
        Ok(next)
    }
}

#[async_trait]
impl QuotaStore for MemoryQuotas {
    async fn take(&self, account: &Account, amount: u64, limit: u64) -> Result<Result<u64, u64>, Error> {
        Ok(self.change(account, |used| used.checked_add(amount).filter(|used| *used <= limit)))
    }

    async fn release(&self, account: &Account, amount: u64) -> Result<Result<u64, u64>, Error> {
        Ok(self.change(account, |used| used.checked_sub(amount)))
    }

    async fn used(&self, account: &Account) -> Result<u64, Error> {
        let all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.get(account).copied().unwrap_or(0))
    }
}
