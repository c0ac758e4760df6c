//! What was spent, by tenant.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use runtime_kernel::TenantContext;

use crate::cost::{Cost, Price};
use crate::wire::Usage;

/// How many tenants' spending is remembered; beyond that what is spent is counted under the empty name.
const MOST_TENANTS: usize = 10_000;

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls that were answered.
    pub calls: u64,
    /// Their tokens.
    pub prompt: u64,
    /// Those of the answers.
    pub completion: u64,
    /// What they cost.
    pub cost: Cost,
}

#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<String, Spent>>);

impl Meter {
    pub(crate) fn add(&self, tenant: Option<&TenantContext>, usage: Usage, price: Price) -> Cost {
        let (name, cost) = (namespace(tenant), price.of(usage));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if all.len() < MOST_TENANTS || all.contains_key(&name) { name } else { String::new() };
        let spent = all.entry(name).or_default();
        spent.calls += 1;
        spent.prompt += u64::from(usage.prompt);
        spent.completion += u64::from(usage.completion);
        spent.cost = spent.cost + cost;
        cost
    }

    pub(crate) fn of(&self, tenant: &str) -> Spent {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or_default()
    }
}

/// `realm/tenant`; empty for a call without one.
pub(crate) fn namespace(tenant: Option<&TenantContext>) -> String {
    tenant.map(TenantContext::namespace).unwrap_or_default()
}
