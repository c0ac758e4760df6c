//! What services put around every call.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use runtime_kernel::{Context, Error, SharedClock};

use crate::call::{Answer, Call, Middleware, Next};

type Rule = Arc<dyn Fn(&Call) -> Result<(), Error> + Send + Sync>;

/// Refuses values of a type that break its rules.
#[derive(Clone)]
pub struct Validate(Rule);

impl Validate {
    /// Checks every command or query of one type.
    pub fn of<T: 'static>(rule: impl Fn(&T) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |call| call.payload::<T>().map_or(Ok(()), &rule)))
    }
}

#[async_trait]
impl Middleware for Validate {
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error> {
        (self.0)(&call)?;
        next.run(call).await
    }
}

impl fmt::Debug for Validate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Validate")
    }
}

/// Refuses calls the caller may not make.
#[derive(Clone)]
pub struct Authorise(Rule);

impl Authorise {
    /// Asks before every call, with the context and the command's or query's name.
    pub fn new(
        permits: impl Fn(&Context, &'static str) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |call| permits(&call.context, call.name)))
    }
}

#[async_trait]
impl Middleware for Authorise {
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error> {
        (self.0)(&call)?;
        next.run(call).await
    }
}

impl fmt::Debug for Authorise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorise")
    }
}

/// Told how each call went: name, error code if it failed, time taken.
type Told = Arc<dyn Fn(&'static str, Option<&Error>, std::time::Duration) + Send + Sync>;

/// Measures every call, for metrics and logs.
#[derive(Clone)]
pub struct Timed {
    clock: SharedClock,
    told: Told,
}

impl Timed {
    /// Tells a function of every call that ended.
    pub fn new(
        clock: SharedClock,
        told: impl Fn(&'static str, Option<&Error>, std::time::Duration) + Send + Sync + 'static,
    ) -> Self {
        Self { clock, told: Arc::new(told) }
    }

    /// Counts every call that ended, by name and error code, and how long it took.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    #[cfg(feature = "metrics")]
    pub fn counting(
        clock: SharedClock,
        metrics: &runtime_telemetry::Metrics,
    ) -> Result<Self, runtime_telemetry::MetricsError> {
        const SECONDS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
        let help = "Commands and queries that ended, by name and error code; `ok` without an error.";
        let calls = metrics.counter("runtime_cqrs_calls_total", help)?;
        let help = "How long commands and queries took, middleware inside of the measuring one included.";
        let took = metrics.histogram("runtime_cqrs_call_duration_seconds", help, &SECONDS)?;
        Ok(Self::new(clock, move |name, error, time| {
            let outcome = error.map_or("ok", Error::code);
            calls.with(&[("name", name), ("outcome", outcome)]).inc();
            took.with(&[("name", name)]).observe_duration(time);
        }))
    }
}

#[async_trait]
impl Middleware for Timed {
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error> {
        let (name, began) = (call.name, self.clock.now());
        let answer = next.run(call).await;
        (self.told)(name, answer.as_ref().err(), self.clock.now().saturating_duration_since(began));
        answer
    }
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timed")
    }
}
