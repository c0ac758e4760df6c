//! A saga as a list of steps over one value, for those who need no more than that.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use runtime_kernel::Error;
use runtime_resilience::RetryPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::definition::Definition;
use crate::step::StepKey;

type Act<S> = Arc<dyn Fn(S, StepKey) -> BoxFuture<'static, Result<S, Error>> + Send + Sync>;
type Undo<S> = Arc<dyn Fn(S, StepKey) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

struct Declared<S> {
    name: Arc<str>,
    act: Act<S>,
    undo: Option<(Arc<str>, Undo<S>)>,
    retry: Option<RetryPolicy>,
    timeout: Option<Duration>,
}

/// Steps that are done one after the other, each with what the one before returned; a compensation gets what its own step
/// returned. The last step's result is the saga's.
///
/// ```
/// use runtime_kernel::Error;
/// use runtime_saga::Steps;
///
/// let transfer = Steps::<i64>::new()
///     .step("withdraw", |amount, _key| async move { Ok(amount) })
///     .compensate("refund", |_amount, _key| async { Ok::<_, Error>(()) })
///     .step("deposit", |amount, _key| async move { Ok(amount) })
///     .definition("transfer", 1);
/// assert_eq!(transfer.name(), "transfer");
/// ```
pub struct Steps<S> {
    steps: Vec<Declared<S>>,
}

impl<S> Default for Steps<S> {
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

impl<S> Steps<S>
where
    S: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    #[must_use]
    pub fn step<F, Fut>(mut self, name: &str, act: F) -> Self
    where
        F: Fn(S, StepKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Error>> + Send + 'static,
    {
        let act: Act<S> = Arc::new(move |value, key| act(value, key).boxed());
        self.steps.push(Declared { name: name.into(), act, undo: None, retry: None, timeout: None });
        self
    }

    /// Undoes the step added last.
    #[must_use]
    pub fn compensate<F, Fut>(mut self, name: &str, undo: F) -> Self
    where
        F: Fn(S, StepKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        if let Some(last) = self.steps.last_mut() {
            last.undo = Some((name.into(), Arc::new(move |value, key| undo(value, key).boxed())));
        }
        self
    }

    /// How the step added last is tried again.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        if let Some(last) = self.steps.last_mut() {
            last.retry = Some(policy);
        }
        self
    }

    /// How long one attempt at the step added last may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        if let Some(last) = self.steps.last_mut() {
            last.timeout = Some(timeout);
        }
        self
    }

    /// The type of saga that does these steps.
    pub fn definition(self, name: &str, version: u32) -> Definition {
        let steps = Arc::new(self.steps);
        Definition::new(name, version, move |saga, mut value: S| {
            let steps = Arc::clone(&steps);
            async move {
                for declared in steps.iter() {
                    let (act, given) = (Arc::clone(&declared.act), value.clone());
                    let mut step = saga.step(declared.name.to_string(), move |key| act(given.clone(), key));
                    if let Some(policy) = &declared.retry {
                        step = step.retry(policy.clone());
                    }
                    if let Some(timeout) = declared.timeout {
                        step = step.timeout(timeout);
                    }
                    if let Some((name, undo)) = declared.undo.clone() {
                        step = step.compensate(name.to_string(), move |done, key| undo(done, key));
                    }
                    value = step.await?;
                }
                Ok(value)
            }
        })
    }
}

impl<S> fmt::Debug for Steps<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|step| &step.name)).finish()
    }
}
