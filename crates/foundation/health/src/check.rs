//! What is checked, how it answers, and how often and how patiently it is asked.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::Status;

/// Something that can tell how it is.
#[async_trait]
pub trait HealthCheck: Send + Sync + 'static {
    /// Looks, and tells. Dropped when its time is up; a panic counts as unhealthy. Must not block the thread: nothing
    /// can cut that short.
    async fn check(&self) -> Outcome;
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it is.
    pub status: Status,
    /// Why, for operators.
    pub message: Option<Cow<'static, str>>,
    /// Figures, for operators.
    pub details: Map<String, Value>,
}

impl Outcome {
    /// All is well.
    pub fn healthy() -> Self {
        Self { status: Status::Healthy, message: None, details: Map::new() }
    }

    /// It works, but worse than it should. Does not fail readiness.
    pub fn degraded(message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Degraded, message: Some(message.into()), details: Map::new() }
    }

    /// It does not work.
    pub fn unhealthy(message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Unhealthy, message: Some(message.into()), details: Map::new() }
    }

    /// Adds a figure.
    #[must_use]
    pub fn detail(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }
}

/// Healthy if it worked, unhealthy with the error's text if not.
impl<T, E: fmt::Display> From<Result<T, E>> for Outcome {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::healthy(),
            Err(error) => Self::unhealthy(error.to_string()),
        }
    }
}

/// Which question a check helps to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Shall the process be restarted? Only what a restart mends belongs here: never a dependency.
    Liveness,
    /// Shall it get work now?
    Readiness,
    /// Has it come up? Once it has, that stays so.
    Startup,
}

/// A check with its name and settings. By default critical, for readiness, with the registry's times and thresholds.
#[derive(Clone)]
pub struct Check {
    pub(crate) name: Cow<'static, str>,
    pub(crate) look: Arc<dyn HealthCheck>,
    pub(crate) probe: Probe,
    pub(crate) critical: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) failure_threshold: Option<u32>,
    pub(crate) success_threshold: Option<u32>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("probe", &self.probe)
            .field("critical", &self.critical)
            .finish_non_exhaustive()
    }
}

impl Check {
    /// A check under a name that is unique in its registry.
    pub fn new(name: impl Into<Cow<'static, str>>, check: impl HealthCheck) -> Self {
        Self {
            name: name.into(),
            look: Arc::new(check),
            probe: Probe::Readiness,
            critical: true,
            timeout: None,
            interval: None,
            failure_threshold: None,
            success_threshold: None,
        }
    }

    /// A check that is a function.
    ///
    /// ```
    /// use runtime_health::{Check, Outcome};
    ///
    /// let check = Check::from_fn("queue", || async { Outcome::healthy().detail("waiting", 3) }).optional();
    /// # drop(check);
    /// ```
    pub fn from_fn<F, W>(name: impl Into<Cow<'static, str>>, check: F) -> Self
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = Outcome> + Send + 'static,
    {
        Self::new(name, FromFn(check))
    }

    /// When it is unhealthy, the whole is degraded, not unhealthy.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.critical = false;
        self
    }

    /// Sets which question it helps to answer.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probe = probe;
        self
    }

    /// Sets the longest one look may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long after one look the next begins.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Sets how many failures in a row make it unhealthy (at least 1). The very first look counts by itself.
    #[must_use]
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = Some(failures);
        self
    }

    /// Sets how many successes in a row make it healthy again (at least 1).
    #[must_use]
    pub fn success_threshold(mut self, successes: u32) -> Self {
        self.success_threshold = Some(successes);
        self
    }
}

struct FromFn<F>(F);

#[async_trait]
impl<F, W> HealthCheck for FromFn<F>
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Outcome> + Send + 'static,
{
    async fn check(&self) -> Outcome {
        (self.0)().await
    }
}
