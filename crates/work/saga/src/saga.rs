//! What a saga's code is written with.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use runtime_kernel::{Context, Error, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::history::{Op, Outcome};
use crate::instance::{ParkReason, SagaId};
use crate::journal::What;
use crate::run::Run;
use crate::state::Fault;
use crate::step::{Step, StepKey};

/// A saga under way, or a branch of one.
///
/// Each operation takes the next position of its branch at the moment it is called. So the same calls must come in the same
/// order whenever the code is run; [`join`](Self::join) is how things happen at once.
pub struct Saga {
    run: Arc<Run>,
    /// `""`, or `"3.1."` in a branch.
    branch: String,
    next: AtomicU32,
}

impl Saga {
    pub(crate) fn root(run: Arc<Run>) -> Self {
        Self { run, branch: String::new(), next: AtomicU32::new(0) }
    }

    /// Which saga.
    pub fn id(&self) -> SagaId {
        self.run.id
    }

    /// Tenant and trace of whoever began it.
    pub fn context(&self) -> &Context {
        &self.run.context
    }

    fn position(&self) -> String {
        format!("{}{}", self.branch, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Something with an effect: run until it returns, and then never again.
    ///
    /// `action` gets the idempotency key. It is run at least once: again when it fails in a way that is worth another
    /// attempt, and when the process dies before its result is in the journal.
    pub fn step<F, Fut, T>(&self, name: impl Into<Cow<'static, str>>, action: F) -> Step<'_, F>
    where
        F: FnMut(StepKey) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        Step::new(Arc::clone(&self.run), self.position(), name.into(), action)
    }

    /// Waits for so long, however often the process restarts meanwhile.
    pub fn sleep(
        &self,
        name: impl Into<Cow<'static, str>>,
        duration: Duration,
    ) -> impl Future<Output = ()> + Send {
        let (run, position, name) = (Arc::clone(&self.run), self.position(), name.into());
        async move { timer(&run, &position, &name, |now| now.saturating_add(duration)).await }
    }

    /// Waits until a time.
    pub fn sleep_until(
        &self,
        name: impl Into<Cow<'static, str>>,
        until: Timestamp,
    ) -> impl Future<Output = ()> + Send {
        let (run, position, name) = (Arc::clone(&self.run), self.position(), name.into());
        async move { timer(&run, &position, &name, |_| until).await }
    }

    /// Waits for a signal of this name, which may have come long before. Each signal is consumed once, the oldest first.
    ///
    /// A payload that is not of the code's type parks the saga.
    pub fn signal<T: DeserializeOwned + Send>(
        &self,
        name: impl Into<Cow<'static, str>>,
    ) -> impl Future<Output = T> + Send {
        let (run, position, name) = (Arc::clone(&self.run), self.position(), name.into());
        async move {
            match receive(&run, &position, &name, None).await {
                Some(payload) => read(&run, &position, payload).await,
                // Without a time there is no end to the waiting.
                None => run.block().await,
            }
        }
    }

    /// The same, for so long at most; `None` when none came.
    pub fn signal_within<T: DeserializeOwned + Send>(
        &self,
        name: impl Into<Cow<'static, str>>,
        longest: Duration,
    ) -> impl Future<Output = Option<T>> + Send {
        let (run, position, name) = (Arc::clone(&self.run), self.position(), name.into());
        async move {
            match receive(&run, &position, &name, Some(longest)).await {
                Some(payload) => Some(read(&run, &position, payload).await),
                None => None,
            }
        }
    }

    /// Two branches at once. Waits for both, also when one has failed; fails with the first branch's error, or the
    /// second's.
    ///
    /// # Errors
    /// Of a branch.
    pub async fn join<A, B, FA, FB>(
        &self,
        first: impl FnOnce(Saga) -> FA,
        second: impl FnOnce(Saga) -> FB,
    ) -> Result<(A, B), Error>
    where
        FA: Future<Output = Result<A, Error>>,
        FB: Future<Output = Result<B, Error>>,
    {
        let position = self.fork().await;
        let (first, second) = (first(self.branch(&position, 0)), second(self.branch(&position, 1)));
        let (a, b) = futures_util::future::join(first, second).await;
        Ok((a?, b?))
    }

    /// A branch for each item, all at once. Waits for all, also when one has failed; fails with the error of the first
    /// branch, in the items' order, that has one.
    ///
    /// # Errors
    /// Of a branch.
    pub async fn join_all<I, T, Fut>(
        &self,
        items: impl IntoIterator<Item = I>,
        mut branch: impl FnMut(Saga, I) -> Fut,
    ) -> Result<Vec<T>, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let position = self.fork().await;
        let branches = items.into_iter().enumerate();
        let branches: Vec<_> =
            branches.map(|(number, item)| branch(self.branch(&position, number), item)).collect();
        join_all(branches).await.into_iter().collect()
    }

    async fn fork(&self) -> String {
        let position = self.position();
        self.run.enter(&position, Op::Join, "").await;
        position
    }

    fn branch(&self, position: &str, number: usize) -> Self {
        let branch = format!("{position}.{number}.");
        Self { run: Arc::clone(&self.run), branch, next: AtomicU32::new(0) }
    }
}

impl fmt::Debug for Saga {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saga").field("id", &self.run.id).field("branch", &self.branch).finish_non_exhaustive()
    }
}

async fn timer(run: &Run, position: &str, name: &str, end: impl FnOnce(Timestamp) -> Timestamp + Send) {
    let set = run.enter(position, Op::Timer, name).await.and_then(|recorded| recorded.until);
    let until = if let Some(until) = set {
        until
    } else {
        let Some(_busy) = run.begin() else { return run.block().await };
        let until = end(run.now());
        run.write(position, What::TimerSet { name: name.to_owned(), until }).await;
        until
    };
    run.wait_until(until).await;
}

async fn receive(run: &Run, position: &str, name: &str, longest: Option<Duration>) -> Option<Value> {
    let recorded = run.enter(position, Op::Signal, name).await;
    let mut until = recorded.as_ref().and_then(|recorded| recorded.until);
    match recorded.and_then(|recorded| recorded.outcome) {
        Some(Outcome::Received(payload)) => return Some(payload),
        Some(Outcome::TimedOut) => return None,
        _ => {}
    }
    let name = name.to_owned();
    if let (Some(longest), None) = (longest, until) {
        let Some(_busy) = run.begin() else { return run.block().await };
        let end = run.now().saturating_add(longest);
        run.write(position, What::SignalAwaited { name: name.clone(), until: end }).await;
        until = Some(end);
    }
    if let Some((_busy, signal)) = run.take_signal(&name, until).await {
        let payload = signal.payload.clone();
        run.write(position, What::SignalReceived { name, signal: signal.number, payload }).await;
        return Some(signal.payload);
    }
    let Some(_busy) = run.begin() else { return run.block().await };
    run.write(position, What::SignalTimedOut { name }).await;
    None
}

async fn read<T: DeserializeOwned>(run: &Run, position: &str, payload: Value) -> T {
    match serde_json::from_value(payload) {
        Ok(payload) => payload,
        Err(error) => {
            let message = format!("the signal's payload is not of the code's type: {error}");
            let reason = ParkReason::Unreadable { position: position.to_owned(), message };
            run.fail(Fault::Park(Box::new(reason))).await
        }
    }
}
