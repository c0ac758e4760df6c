//! One claim of a saga under way: what its code, its compensations and its driver share.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use runtime_kernel::{Carried, Context, Deadline, Error, ErrorKind, Retry, SharedClock, Source, Timestamp};
use runtime_resilience::{RetryPolicy, SharedRng};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::config::SagaConfig;
use crate::history::{History, Op, Recorded};
use crate::instance::{Instance, ParkReason, SagaId};
use crate::journal::{Entry, What};
use crate::state::{Compensation, Fault, State, Stopping};
use crate::step::StepKey;
use crate::store::{Claimed, SagaStore, Signal};

/// What all claims of a worker share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn SagaStore>,
    pub(crate) clock: SharedClock,
    pub(crate) config: SagaConfig,
    pub(crate) retry: RetryPolicy,
    pub(crate) compensation_retry: RetryPolicy,
    pub(crate) rng: SharedRng,
}

/// One claim of a saga.
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: SagaId,
    pub(crate) fence: u64,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) context: Context,
    /// The store's time when it was claimed, and this process's at that moment.
    claimed_at: (Timestamp, Instant),
    state: Mutex<State>,
    writing: tokio::sync::Mutex<()>,
    /// The driver should look.
    pub(crate) look: Notify,
    /// Signals have come, or the code is not let on.
    pub(crate) news: watch::Sender<u64>,
}

impl Run {
    pub(crate) fn new(shared: Arc<Shared>, claimed: Claimed, now: Timestamp) -> Self {
        let Claimed { instance, journal, signals } = claimed;
        let Instance { id, fence, deadline, context, pokes, cancel, .. } = instance;
        let clock = &*shared.clock;
        // Whoever asked has long had an answer: their deadline is not the saga's.
        let carried = Carried { deadline: None, ..context };
        let context = carried.resume(Source::Job, clock).with_caller_retries(true);
        let state = State::new(History::of(journal), signals, cancel.map(Stopping::Cancelled), pokes);
        Self {
            id,
            fence,
            deadline,
            context,
            claimed_at: (now, clock.now()),
            shared,
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::default(),
            look: Notify::new(),
            news: watch::Sender::new(0),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's time.
    pub(crate) fn now(&self) -> Timestamp {
        let (at, instant) = self.claimed_at;
        at.saturating_add(self.shared.clock.now().saturating_duration_since(instant))
    }

    /// Asks the code to stop before its next operation; what runs is let finish.
    pub(crate) fn stop(&self, why: Stopping) {
        self.lock().stopping.get_or_insert(why);
        self.tell();
    }

    /// Signals have come.
    pub(crate) fn hear(&self, signals: Vec<Signal>, pokes: u64) {
        {
            let mut state = self.lock();
            let last = state.signals.last().map_or(0, |signal| signal.number);
            state.signals.extend(signals.into_iter().filter(|signal| signal.number > last));
            state.pokes = state.pokes.max(pokes);
        }
        self.tell();
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
        self.look.notify_one();
    }

    /// Ends the claim from inside the code, which never learns of it.
    pub(crate) async fn fail<T>(&self, fault: Fault) -> T {
        self.lock().fault.get_or_insert(fault);
        self.look.notify_one();
        std::future::pending().await
    }

    /// What the journal has at a position, after a look at whether it is the same operation.
    pub(crate) async fn enter(&self, position: &str, op: Op, name: &str) -> Option<Recorded> {
        let (recorded, other) = {
            let mut state = self.lock();
            state.visited.insert(position.to_owned());
            let recorded = state.history.ops.get(position).cloned();
            let inside =
                |known: &&String| known.strip_prefix(position).is_some_and(|rest| rest.starts_with('.'));
            let other = match &recorded {
                Some(known) if known.op != op || known.name != name => Some(known.op.describe(&known.name)),
                None if op != Op::Join => {
                    state.history.ops.keys().find(inside).map(|_| Op::Join.describe(""))
                }
                _ => None,
            };
            (recorded, other)
        };
        if let Some(recorded) = other {
            let (position, found) = (position.to_owned(), op.describe(name));
            return self
                .fail(Fault::Park(Box::new(ParkReason::NonDeterminism { position, recorded, found })))
                .await;
        }
        recorded
    }

    /// Adds to the journal; its number.
    pub(crate) async fn write(&self, position: &str, what: What) -> u64 {
        match self.try_write(position, what).await {
            Ok(seq) => seq,
            Err(fault) => self.fail(fault).await,
        }
    }

    pub(crate) async fn try_write(&self, position: &str, what: What) -> Result<u64, Fault> {
        let _one_at_a_time = self.writing.lock().await;
        let seq = self.lock().history.last + 1;
        let limit = self.shared.config.max_journal;
        // What is undone has its end, and must not be kept from it.
        if seq > limit && !what.undoes() {
            return Err(Fault::Park(Box::new(ParkReason::JournalFull { limit })));
        }
        let entry = Entry { seq, at: self.now(), position: position.to_owned(), what };
        self.shared.store.append(self.id, self.fence, &entry).await.map_err(Fault::Store)?;
        self.lock().history.add(entry);
        Ok(seq)
    }

    /// Whether a value may be kept.
    pub(crate) fn fits(&self, position: &str, value: &Value) -> Result<(), Box<ParkReason>> {
        let (size, limit) = (value.to_string().len(), self.shared.config.payload_limit());
        if size <= limit {
            return Ok(());
        }
        Err(Box::new(ParkReason::TooLarge { position: position.to_owned(), size, limit }))
    }

    /// Runs one attempt at a step or a compensation within its time. What panics or takes too long is tried again.
    pub(crate) async fn attempt<T, Fut>(
        &self,
        key: StepKey,
        timeout: Option<Duration>,
        run: impl FnOnce(StepKey) -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let clock = &*self.shared.clock;
        let limit = timeout.unwrap_or(self.shared.config.step_timeout);
        let deadline = Deadline::after(clock, limit);
        let key = StepKey { context: self.context.clone().with_deadline(deadline), ..key };
        let span = tracing::info_span!(
            "saga step",
            saga = %self.id,
            key = %key.as_str(),
            attempt = key.attempt,
            trace_id = %self.context.trace.trace_id_hex(),
        );
        let work = AssertUnwindSafe(async { run(key).await }).catch_unwind();
        match deadline.run(clock, tracing::Instrument::instrument(work, span)).await {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => {
                let error = Error::new(ErrorKind::Internal, "saga.panicked", "the step panicked");
                Err(error.with_source(said(&*panic)).with_retry(Retry::Backoff))
            }
            Err(_) => {
                let message = format!("the attempt took longer than {limit:?}");
                Err(Error::new(ErrorKind::Timeout, "saga.step_timeout", message))
            }
        }
    }

    /// Tells of a compensation.
    pub(crate) fn register(&self, seq: Option<u64>, compensation: Compensation) {
        let mut state = self.lock();
        let number = state.compensations.len();
        state.compensations.insert((seq.unwrap_or(u64::MAX), number), compensation);
    }

    pub(crate) fn key(&self, position: &str, undo: bool, attempt: u32) -> StepKey {
        let ending = if undo { ":undo" } else { "" };
        let text = format!("{}:{position}{ending}", self.id).into();
        StepKey { text, attempt, context: self.context.clone() }
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
