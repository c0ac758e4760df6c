//! A step: something with an effect, done once per key, tried again when it fails, undone when the saga fails.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use runtime_kernel::{Context, Error};
use runtime_resilience::RetryPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::history::{Op, Outcome};
use crate::instance::{Failure, ParkReason};
use crate::journal::What;
use crate::run::Run;
use crate::state::{Compensation, Fault};

/// Handed to each attempt at a step or a compensation: its idempotency key, and what else it needs to know.
///
/// The key is the saga's id and the step's position, the same for every attempt and on whichever node: pass it to whatever
/// the step calls, and the effect happens once.
#[derive(Clone, Debug)]
pub struct StepKey {
    pub(crate) text: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) context: Context,
}

impl StepKey {
    /// The idempotency key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which attempt this is, from 1. An attempt that was cut off by a crash is not counted.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tenant, trace and this attempt's deadline.
    pub fn context(&self) -> &Context {
        &self.context
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

type Undo = Box<dyn FnMut(Option<Value>, StepKey) -> BoxFuture<'static, Result<(), Error>> + Send>;

/// A step that has been described; it is done when awaited.
#[must_use = "a step is done when it is awaited"]
pub struct Step<'a, F> {
    run: Arc<Run>,
    position: String,
    name: Cow<'static, str>,
    action: F,
    policy: Option<RetryPolicy>,
    timeout: Option<Duration>,
    undo: Option<(Cow<'static, str>, Undo)>,
    always: bool,
    undo_policy: Option<RetryPolicy>,
    undo_timeout: Option<Duration>,
    /// What the action borrows outlives the step.
    borrowed: PhantomData<&'a ()>,
}

impl<F> Step<'_, F> {
    pub(crate) fn new(run: Arc<Run>, position: String, name: Cow<'static, str>, action: F) -> Self {
        Self {
            run,
            position,
            name,
            action,
            policy: None,
            timeout: None,
            undo: None,
            always: false,
            undo_policy: None,
            undo_timeout: None,
            borrowed: PhantomData,
        }
    }

    /// How it is tried again; as the configuration says unless told. Whether a failure is worth another attempt, the error
    /// itself says.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How long one attempt may take; as the configuration says unless told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How its compensation is tried again; as the configuration says unless told.
    pub fn compensation_retry(mut self, policy: RetryPolicy) -> Self {
        self.undo_policy = Some(policy);
        self
    }

    /// How long one attempt at its compensation may take; as the configuration says unless told.
    pub fn compensation_timeout(mut self, timeout: Duration) -> Self {
        self.undo_timeout = Some(timeout);
        self
    }

    /// Undoes the step, given its result, when the saga fails after it was done.
    ///
    /// A step that failed for good is taken to have done nothing; use [`compensate_always`](Self::compensate_always)
    /// where that is not certain.
    pub fn compensate<T, A, U, Fut>(mut self, name: impl Into<Cow<'static, str>>, mut undo: U) -> Self
    where
        T: DeserializeOwned,
        F: FnMut(StepKey) -> A,
        A: Future<Output = Result<T, Error>>,
        U: FnMut(T, StepKey) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let undo: Undo =
            Box::new(move |result, key| match serde_json::from_value(result.unwrap_or_default()) {
                Ok(result) => undo(result, key).boxed(),
                Err(error) => std::future::ready(Err(Error::internal(error))).boxed(),
            });
        self.undo = Some((name.into(), undo));
        self.always = false;
        self
    }

    /// Undoes the step when the saga fails, also when nobody knows whether it did anything: it failed for good (perhaps
    /// only its answer was lost), or the saga was made to stop while it was still to be tried again. There is no result
    /// then, and the compensation must do no harm where there is nothing to undo.
    pub fn compensate_always<T, A, U, Fut>(mut self, name: impl Into<Cow<'static, str>>, mut undo: U) -> Self
    where
        T: DeserializeOwned,
        F: FnMut(StepKey) -> A,
        A: Future<Output = Result<T, Error>>,
        U: FnMut(Option<T>, StepKey) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let undo: Undo = Box::new(move |result, key| match result.map(serde_json::from_value).transpose() {
            Ok(result) => undo(result, key).boxed(),
            Err(error) => std::future::ready(Err(Error::internal(error))).boxed(),
        });
        self.undo = Some((name.into(), undo));
        self.always = true;
        self
    }

    /// The compensation's name, as the journal has it when the step is done, or also when it failed.
    fn owed(&self, done: bool) -> Option<String> {
        let name = self.undo.as_ref().map(|(name, _)| name.to_string());
        name.filter(|_| done || self.always)
    }

    fn register(&mut self, seq: Option<u64>, result: Option<Value>) {
        if result.is_none() && !self.always {
            return;
        }
        let Some((name, mut undo)) = self.undo.take() else { return };
        let compensation = Compensation {
            position: self.position.clone(),
            name: name.into_owned(),
            policy: self.undo_policy.take(),
            timeout: self.undo_timeout,
            run: Box::new(move |key| undo(result.clone(), key)),
        };
        self.run.register(seq, compensation);
    }

    async fn perform<T, Fut>(mut self) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(StepKey) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let run = Arc::clone(&self.run);
        let (mut attempt, mut wait) = (0, None);
        if let Some(recorded) = run.enter(&self.position, Op::Step, &self.name).await {
            match recorded.outcome {
                Some(Outcome::Done { seq, result }) => return self.hand_out(seq, result).await,
                Some(Outcome::GaveUp { seq, failure }) => {
                    self.register(Some(seq), None);
                    return Err(failure.to_error());
                }
                _ => (attempt, wait) = (recorded.attempts, recorded.until),
            }
        }
        let policy = self.policy.take();
        let policy = policy.as_ref().unwrap_or(&run.shared.retry);
        loop {
            if let Some(until) = wait {
                run.wait_for_turn(until).await;
            }
            let Some(busy) = run.begin() else {
                self.register(None, None);
                return run.block().await;
            };
            attempt += 1;
            let key = run.key(&self.position, false, attempt);
            let name = self.name.to_string();
            let error = match run.attempt(key, self.timeout, &mut self.action).await {
                Ok(result) => {
                    let result = keep(&run, &self.position, result).await;
                    let what = What::StepDone { name, result: result.clone(), compensation: self.owed(true) };
                    let seq = run.write(&self.position, what).await;
                    drop(busy);
                    return self.hand_out(seq, result).await;
                }
                Err(error) => error,
            };
            let failure = Failure::from(&error);
            tracing::debug!(saga = %run.id, step = %name, attempt, error = %failure.report, "a step failed");
            let Some(delay) = policy.next_delay(attempt, error.retry(), &mut run.shared.rng.clone()) else {
                let compensation = self.owed(false);
                let what = What::StepGaveUp { name, attempt, failure: failure.clone(), compensation };
                let seq = run.write(&self.position, what).await;
                self.register(Some(seq), None);
                return Err(failure.to_error());
            };
            let retry_at = run.now().saturating_add(delay);
            run.write(&self.position, What::StepFailed { name, attempt, failure, retry_at }).await;
            wait = Some(retry_at);
        }
    }

    /// The result as the journal has it, so that the code sees the same in a first run and in every replay.
    async fn hand_out<T: DeserializeOwned>(mut self, seq: u64, result: Value) -> Result<T, Error> {
        self.register(Some(seq), Some(result.clone()));
        match serde_json::from_value(result) {
            Ok(result) => Ok(result),
            Err(error) => {
                let message =
                    format!("the result of step `{}` is not of the code's type: {error}", self.name);
                let reason = ParkReason::Unreadable { position: self.position.clone(), message };
                self.run.fail(Fault::Park(Box::new(reason))).await
            }
        }
    }
}

impl<'a, F, T, Fut> IntoFuture for Step<'a, F>
where
    T: Serialize + DeserializeOwned + Send + 'a,
    F: FnMut(StepKey) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, Error>> + Send + 'a,
{
    type Output = Result<T, Error>;
    type IntoFuture = BoxFuture<'a, Result<T, Error>>;

    fn into_future(self) -> Self::IntoFuture {
        self.perform().boxed()
    }
}

impl<F> fmt::Debug for Step<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("position", &self.position)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The result as the journal will have it.
async fn keep<T: Serialize>(run: &Run, position: &str, result: T) -> Value {
    let reason = match serde_json::to_value(result) {
        Ok(result) => match run.fits(position, &result) {
            Ok(()) => return result,
            Err(reason) => reason,
        },
        Err(error) => {
            Box::new(ParkReason::Unreadable { position: position.to_owned(), message: error.to_string() })
        }
    };
    run.fail(Fault::Park(reason)).await
}
