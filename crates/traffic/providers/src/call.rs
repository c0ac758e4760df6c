//! A call that has been given room and money, and is settled when it is known what it used.

use std::sync::Arc;

use runtime_kernel::{Deadline, TenantContext, Timestamp};
use runtime_limits::QuotaError;

use crate::error::ProviderError;
use crate::harden::{HardenedChat, Inner};
use crate::port::ChatModel;
use crate::target::{Head, Live, Room};
use crate::wire::{Delta, Usage, bytes};

/// What was taken from a quota, and when what is taken is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Money {
    pub(crate) micros: u64,
    pub(crate) until: Option<Timestamp>,
}

/// A call that has been given room and money.
pub(crate) struct Call {
    pub(crate) chat: HardenedChat,
    pub(crate) live: Arc<Live<dyn ChatModel>>,
    pub(crate) room: Room,
    pub(crate) reserved: Money,
    pub(crate) tenant: Option<Arc<TenantContext>>,
    pub(crate) deadline: Deadline,
    /// What question and answer may have at most.
    pub(crate) most: Usage,
    /// What the provider said of its limits.
    pub(crate) head: Head,
}

/// Dropped without a word, what was reserved counts as used, and what was spent is not known.
impl Call {
    pub(crate) async fn used(self, usage: Usage) {
        let inner = &*self.chat.inner;
        let tenant = self.tenant.as_deref();
        let cost = inner.meter.add(tenant, usage, self.live.target.config.price).micros();
        self.room.used(usage.total()).await;
        // After ours has come back: of the two counts the smaller one holds.
        self.live.told(self.head).await;
        give_back(inner, tenant, self.reserved, cost).await;
        take_more(inner, tenant, cost.saturating_sub(self.reserved.micros)).await;
    }

    /// The provider has refused it: it was a request, and no more.
    pub(crate) async fn refused(self) {
        self.room.used(0).await;
        give_back(&self.chat.inner, self.tenant.as_deref(), self.reserved, 0).await;
    }
}

async fn give_back(inner: &Inner, tenant: Option<&TenantContext>, reserved: Money, cost: u64) {
    // What was taken in a day that is over would come back from the next one, which others have spent.
    if reserved.until.is_some_and(|until| until <= inner.clock.utc()) {
        return;
    }
    let micros = reserved.micros.saturating_sub(cost);
    if let (Some(quotas), Some(name), Some(tenant), true) =
        (&inner.quotas, &inner.config.quota, tenant, micros > 0)
        && let Err(error) = quotas.release(tenant, name, micros).await
    {
        tracing::warn!(error = %error, micros, "what a call did not cost could not be given back");
    }
}

/// What a call has cost beyond the estimate counts as well, as far as the tenant has it; the rest is spent all the same.
async fn take_more(inner: &Inner, tenant: Option<&TenantContext>, micros: u64) {
    let (Some(quotas), Some(name), Some(tenant)) = (&inner.quotas, &inner.config.quota, tenant) else {
        return;
    };
    let mut wanted = micros;
    // Less each time, and again only when others have taken of what was left.
    while wanted > 0 {
        let Err(error) = quotas.take(tenant, name, wanted).await else { return };
        tracing::warn!(error = %error, micros, "a call cost more than its estimate, and more than the tenant has");
        wanted = match error {
            QuotaError::Exceeded { usage, .. } => usage.left().min(wanted - 1),
            _ => 0,
        };
    }
}

/// What has been heard of a stream, settled at its end. Dropped before, its call is dropped without a word.
pub(crate) struct Heard {
    call: Option<Call>,
    bytes: usize,
    usage: Option<Usage>,
}

impl Heard {
    pub(crate) fn of(call: Call) -> Self {
        Self { call: Some(call), bytes: 0, usage: None }
    }

    pub(crate) fn hear(&mut self, delta: &Delta) {
        self.bytes = self.bytes.saturating_add(delta.content.len() + bytes(&delta.more));
        self.usage = delta.usage.and_then(Usage::said).or(self.usage);
    }

    pub(crate) fn target(&self) -> String {
        self.call.as_ref().map(|call| call.live.target.name.to_string()).unwrap_or_default()
    }

    pub(crate) async fn end(&mut self, error: Option<&ProviderError>) {
        let Some(call) = self.call.take() else { return };
        let usage = self.usage.unwrap_or(call.most.heard(self.bytes));
        match error {
            Some(error) => call.live.failed(error, usage),
            // Not before: one that breaks off every stream has begun them all.
            None => call.live.answered(usage),
        }
        call.used(usage).await;
    }
}
