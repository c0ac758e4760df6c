//! One thing to look at, and a module's list of them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::Error;

use crate::Status;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How well it works.
    pub status: Status,
    /// What operators should read beside it: shown by probes, so free of secrets.
    pub message: Option<String>,
}

impl Finding {
    /// It works.
    pub const fn healthy() -> Self {
        Self { status: Status::Healthy, message: None }
    }

    /// It works, worse than it should.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self { status: Status::Degraded, message: Some(message.into()) }
    }

    /// It does not work.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self { status: Status::Unhealthy, message: Some(message.into()) }
    }

    pub(crate) fn of_error(error: &Error) -> Self {
        // The message of a fault of ours is for the log only.
        let message = if error.kind().is_server_fault() { error.kind().title() } else { error.message() };
        Self::unhealthy(message)
    }
}

/// Looks at one thing the process depends on.
#[async_trait]
pub trait HealthCheck: Send + Sync + 'static {
    /// The name in reports, unique in a registry.
    fn name(&self) -> Cow<'static, str>;

    /// Looks. An error means unhealthy. Dropped when it takes longer than its timeout.
    async fn check(&self) -> Result<Finding, Error>;
}

/// A check made of a name and an async closure.
pub fn check<F, W>(name: impl Into<Cow<'static, str>>, look: F) -> impl HealthCheck
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<Finding, Error>> + Send + 'static,
{
    Named { name: name.into(), look }
}

struct Named<F> {
    name: Cow<'static, str>,
    look: F,
}

#[async_trait]
impl<F, W> HealthCheck for Named<F>
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<Finding, Error>> + Send + 'static,
{
    fn name(&self) -> Cow<'static, str> {
        self.name.clone()
    }

    async fn check(&self) -> Result<Finding, Error> {
        (self.look)().await
    }
}

/// A list of checks: each is critical, with the registry's timeout, unless the calls after it say otherwise.
#[derive(Default)]
pub struct HealthChecks {
    pub(crate) entries: Vec<Entry>,
    #[cfg(feature = "module")]
    pub(crate) services: crate::module::Bound,
}

pub(crate) struct Entry {
    pub(crate) check: Arc<dyn HealthCheck>,
    pub(crate) critical: bool,
    pub(crate) timeout: Option<Duration>,
}

impl HealthChecks {
    /// Adds a check.
    pub fn add(&mut self, check: impl HealthCheck) -> &mut Self {
        self.entries.push(Entry { check: Arc::new(check), critical: true, timeout: None });
        self
    }

    /// The check added last decides about readiness: the default.
    pub fn critical(&mut self) -> &mut Self {
        self.last(|entry| entry.critical = true)
    }

    /// The check added last only degrades the process when it fails.
    pub fn optional(&mut self) -> &mut Self {
        self.last(|entry| entry.critical = false)
    }

    /// The check added last may take this long.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.last(|entry| entry.timeout = Some(timeout))
    }

    fn last(&mut self, change: impl FnOnce(&mut Entry)) -> &mut Self {
        if let Some(entry) = self.entries.last_mut() {
            change(entry);
        }
        self
    }
}

impl fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| entry.check.name())).finish()
    }
}
