//! The rate of an operation, by who asks.

use std::fmt::Write;
use std::sync::Arc;

use runtime_kernel::Context;
use runtime_ratelimit::{Buckets, Demand, Operations};

use crate::error::ProviderError;

/// The rate of an operation (`ai_generate`, `embed`), kept for each who asks: the principal, or else the tenant. Nothing
/// is limited that the table of operations does not name.
#[derive(Clone, Debug)]
pub struct Gate {
    buckets: Arc<dyn Buckets>,
    operations: Arc<Operations>,
    operation: String,
}

impl Gate {
    /// A gate of that operation.
    pub fn new(buckets: Arc<dyn Buckets>, operations: Arc<Operations>, operation: impl Into<String>) -> Self {
        Self { buckets, operations, operation: operation.into() }
    }

    pub(crate) async fn pass(&self, context: &Context) -> Result<(), ProviderError> {
        // As rate limits by principal and by tenant name them.
        let mut subject = context.tenant.as_ref().map(|tenant| tenant.namespace()).unwrap_or_default();
        if let Some(principal) = &context.principal {
            let colon = if subject.is_empty() { "" } else { ":" };
            let _ = write!(subject, "{colon}{}", principal.id);
        }
        let Some((key, rate)) = self.operations.limit(&self.operation, &subject) else { return Ok(()) };
        let taken = self.buckets.take(&[Demand::new(&key, rate)]).await;
        taken.map(drop).map_err(|refused| ProviderError::Limited {
            target: self.operation.clone(),
            tokens: 1,
            retry_after: refused.error.retry_after(),
        })
    }
}
