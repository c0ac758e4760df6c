//! What has to happen, in order, before any service starts.

use std::borrow::Cow;
use std::pin::Pin;

use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::container::Container;
use crate::lifecycle::{Shutdown, StopReason, panic_text};

type Starting = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

pub(super) struct StartHook {
    name: Cow<'static, str>,
    start: Box<dyn FnOnce(Container) -> Starting + Send>,
}

impl StartHook {
    pub(super) fn new<F, W>(name: Cow<'static, str>, hook: F) -> Self
    where
        F: FnOnce(Container) -> W + Send + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        Self { name, start: Box::new(|container| Box::pin(hook(container))) }
    }

    /// Runs the hook; a failure or a panic triggers the shutdown, a request to end drops it.
    pub(super) async fn run(self, container: Container, shutdown: &Shutdown) {
        let Self { name, start } = self;
        tracing::debug!(hook = %name, "starting");
        // A task of its own catches the panic; started inside it, so before the first await too.
        let task = AbortOnDropHandle::new(tokio::spawn(async move { start(container).await }));
        let (code, message) = match shutdown.requested().until(task).await {
            None => {
                tracing::warn!(hook = %name, "cut: the end was asked for while starting");
                return;
            }
            Some(Ok(Ok(()))) => return,
            Some(Ok(Err(error))) => (error.code().to_owned(), error.report()),
            Some(Err(join)) => ("internal".to_owned(), format!("panic: {}", panic_text(join))),
        };
        tracing::error!(hook = %name, code, message, "a start hook failed");
        shutdown.trigger(StopReason::StartFailed { hook: name.into_owned(), code, message });
    }
}
