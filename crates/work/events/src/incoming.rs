//! What a handler of a durable subscription gets.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use runtime_kernel::{Context, Error};

use crate::cloudevent::CloudEvent;

/// An event handed to a handler, at least once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The topic it was published to.
    pub topic: String,
    /// What happened.
    pub event: CloudEvent,
    /// The work it came from, taken up again: same trace, same tenant.
    pub context: Context,
    /// Its place in the log or stream.
    pub position: u64,
    /// Which attempt this is, from 1, as far as the broker knows.
    pub attempt: u32,
}

/// What is done with each event of a durable subscription.
///
/// `Ok` means done. An error that says [`Retry::Never`](runtime_kernel::Retry::Never) parks the event at once, others
/// when its attempts are used up.
#[derive(Clone)]
pub struct Handler(Arc<dyn Fn(Incoming) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>);

impl Handler {
    /// From an async closure or function.
    pub fn new<F, W>(handle: F) -> Self
    where
        F: Fn(Incoming) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        Self(Arc::new(move |incoming| Box::pin(handle(incoming))))
    }

    pub(crate) fn call(&self, incoming: Incoming) -> BoxFuture<'static, Result<(), Error>> {
        (self.0)(incoming)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}
