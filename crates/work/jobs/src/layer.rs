//! What is done around every attempt at a job: layers, the outermost first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use runtime_kernel::Error;
use serde_json::Value;

use crate::handler::{HandlerFn, JobContext};

pub(crate) type LayerFuture = Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;
pub(crate) type LayerFn = dyn Fn(JobContext, Next) -> LayerFuture + Send + Sync;

/// The rest of an attempt, for a [layer](crate::Handlers::layer) to run: the layers inside it, then the handler.
///
/// Dropped without having been run, the handler is not called and what the layer returns decides about the job.
#[must_use = "the handler is not called unless this is run"]
pub struct Next {
    layers: Arc<[Arc<LayerFn>]>,
    /// How many of them have been passed.
    passed: usize,
    handler: Arc<HandlerFn>,
    payload: Arc<str>,
}

impl Next {
    pub(crate) fn new(layers: Arc<[Arc<LayerFn>]>, handler: Arc<HandlerFn>, payload: Arc<str>) -> Self {
        Self { layers, passed: 0, handler, payload }
    }

    /// Runs it, with the context given: the handler's result as JSON, or its error.
    ///
    /// # Errors
    /// What a layer inside or the handler brings.
    pub async fn run(mut self, job: JobContext) -> Result<Value, Error> {
        let Some(layer) = self.layers.get(self.passed).cloned() else {
            return (self.handler)(job, self.payload).await;
        };
        self.passed += 1;
        layer(job, self).await
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}
