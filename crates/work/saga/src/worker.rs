//! Claims sagas, drives them, keeps their leases and settles them.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Deadline, Error, Timestamp, uuid_v7};
use runtime_resilience::{RetryPolicy, SharedRng};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::drive::drive;
use crate::error::SagaError;
use crate::instance::{ParkReason, SagaId, kind_of};
use crate::metrics::SagaMetrics;
use crate::run::{Run, Shared, said};
use crate::sagas::Sagas;
use crate::state::{Fault, Stopping};
use crate::store::{ClaimRequest, Claimed, Settle};

/// How often sagas of unknown types and old ones are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Sagas parked, or forgotten, in one transaction.
pub(crate) const BATCH: u32 = 500;

/// How long a saga waits after the store failed it.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the end of a claim is written before it is left to the lease.
const TRIES: u32 = 5;

/// Runs sagas of the types it knows.
///
/// Any number of workers share one store. A saga that waits is given back, so that any of them takes it up again.
pub struct Worker {
    sagas: Sagas,
    shared: Arc<Shared>,
    name: String,
    metrics: SagaMetrics,
    prunes: bool,
    held: Arc<Held>,
}

/// The claims of a worker.
#[derive(Default)]
struct Held(Mutex<HashMap<SagaId, (Arc<Run>, AbortHandle)>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<SagaId, (Arc<Run>, AbortHandle)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// A worker over sagas and the types they know.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] names the limit that cannot be used.
    pub fn new(sagas: Sagas) -> Result<Self, SagaError> {
        let config = sagas.config().clone();
        if let Some((key, problem)) = config.problem() {
            return Err(SagaError::Invalid(format!("saga.{key} {problem}")));
        }
        let policy = |config| RetryPolicy::new(config).map_err(|error| SagaError::Invalid(error.to_string()));
        let shared = Shared {
            store: Arc::clone(sagas.store()),
            clock: Arc::clone(sagas.clock()),
            retry: policy(config.retry.clone())?,
            compensation_retry: policy(config.compensation_retry.clone())?,
            rng: SharedRng::from_os(),
            config,
        };
        let name = uuid_v7(&*shared.clock).to_string();
        let shared = Arc::new(shared);
        let (metrics, held) = (SagaMetrics::default(), Arc::default());
        Ok(Self { sagas, shared, name, metrics, prunes: true, held })
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: SagaMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Leaves it to somebody else to forget sagas that are over.
    #[must_use]
    pub fn without_pruning(mut self) -> Self {
        self.prunes = false;
        self
    }

    /// Spreads retries reproducibly.
    #[must_use]
    pub fn with_rng(mut self, rng: SharedRng) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.rng = rng;
        }
        self
    }

    /// The name its claims are recorded under: unique to this process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs until `stop` is ready, then drains: claims nothing more, lets each saga come to the end of the step it is in,
    /// at most for `drain`, and gives everything back.
    ///
    /// Survives the store's absence. When dropped, steps are cut where they are; their sagas come back once their leases
    /// have run out, and such a step is run again with the same key.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let work = async {
            let mut turns = JoinSet::new();
            self.work(stop, &mut turns).await;
            self.drain(turns).await;
        };
        // None is a task of its own: one that is aborted may be in the middle of a heartbeat on another thread, and extend
        // a lease once more after the worker is gone.
        tokio::select! {
            biased;
            () = work => {}
            () = beat(&self.shared, &self.name, &self.held) => {}
            () = listen(&self.sagas) => {}
            () = keep_house(&self.sagas, &self.metrics, self.prunes) => {}
        }
    }

    async fn work(&self, stop: impl Future<Output = ()> + Send, turns: &mut JoinSet<()>) {
        let (clock, config) = (&self.shared.clock, &self.shared.config);
        let concurrency = usize::try_from(config.concurrency).unwrap_or(usize::MAX);
        let mut request = ClaimRequest {
            worker: self.name.clone(),
            kinds: self.sagas.definitions().kinds(),
            max: 0,
            lease: config.lease,
        };
        let mut look = true;
        let mut wait = config.poll_interval;
        tokio::pin!(stop);
        loop {
            while turns.try_join_next().is_some() {}
            let room = concurrency.saturating_sub(turns.len());
            if look && room > 0 && !request.kinds.is_empty() {
                request.max = u32::try_from(room).unwrap_or(u32::MAX);
                look = false;
                wait = config.poll_interval;
                match self.shared.store.claim(&request).await {
                    Ok(claims) => {
                        // A full answer means that more may be due.
                        look = claims.claimed.len() >= room;
                        if let Some(next) = claims.next {
                            wait = next.duration_since(claims.now).min(wait);
                        }
                        for claimed in claims.claimed {
                            self.start(claimed, claims.now, turns);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(error = %Error::from(error).report(), "sagas could not be claimed");
                    }
                }
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                Some(_) = turns.join_next() => {}
                () = self.sagas.wake().notified() => look = true,
                () = clock.sleep(wait.max(Duration::from_millis(1))) => look = true,
            }
        }
    }

    fn start(&self, claimed: Claimed, now: Timestamp, turns: &mut JoinSet<()>) {
        let id = claimed.instance.id;
        let (name, input) = (claimed.instance.name.clone(), claimed.instance.input.clone());
        let version = claimed.instance.version;
        let definition = self.sagas.definitions().get(&name, version).cloned();
        let run = Arc::new(Run::new(Arc::clone(&self.shared), claimed, now));
        let (held, metrics, wake) =
            (Arc::clone(&self.held), self.metrics.clone(), Arc::clone(self.sagas.wake()));
        let turn = Arc::clone(&run);
        // The turn begins only once it is held, or a short one might end before.
        let begin = Arc::new(Notify::new());
        let held_by_now = Arc::clone(&begin);
        let abort = turns.spawn(async move {
            held_by_now.notified().await;
            let clock = &turn.shared.clock;
            let from = clock.now();
            let work = async {
                match &definition {
                    Some(definition) => drive(&turn, definition, input).await,
                    None => {
                        Err(Fault::Park(Box::new(ParkReason::Unregistered { kind: kind_of(&name, version) })))
                    }
                }
            };
            let settle = match caught(work).await {
                Ok(done) => settle_of(&turn, done, &metrics),
                Err(panic) => {
                    tracing::error!(saga = %turn.id, kind = %kind_of(&name, version), panic, "a turn panicked");
                    again(&turn)
                }
            };
            match caught(end(&turn, &settle)).await {
                Ok(true) => {
                    metrics.settled(&name, &settle, clock.now().saturating_duration_since(from));
                    if let Settle::Park { reason, .. } = &settle {
                        tracing::error!(saga = %turn.id, kind = %kind_of(&name, version), %reason, "a saga was parked");
                    }
                }
                // Held no longer, so its lease runs out.
                Ok(false) => {}
                Err(panic) => tracing::error!(saga = %turn.id, panic, "the end of a turn panicked"),
            }
            let mut held = held.lock();
            if held.get(&turn.id).is_some_and(|(other, _)| Arc::ptr_eq(other, &turn)) {
                held.remove(&turn.id);
            }
            drop(held);
            wake.notify_one();
        });
        self.held.lock().insert(id, (run, abort));
        begin.notify_one();
    }

    async fn drain(&self, mut turns: JoinSet<()>) {
        let clock = &*self.shared.clock;
        for (run, _) in self.held.lock().values() {
            run.stop(Stopping::Draining);
        }
        let deadline = Deadline::after(clock, self.shared.config.drain);
        while let Ok(Some(_)) = deadline.run(clock, turns.join_next()).await {}
        turns.shutdown().await;
        let cut: Vec<_> = self.held.lock().drain().map(|(_, (run, _))| run).collect();
        for run in cut {
            let failure = run.lock().history.decided.clone();
            let back = Settle::Wait { until: Some(run.now()), failure, pokes: run.lock().pokes };
            end(&run, &back).await;
        }
    }
}

/// How a claim is settled. What was refused as another's is given back too: should the claim still hold, nobody has to
/// wait for its end, and if not, this is refused as well.
fn settle_of(run: &Run, done: Result<Settle, Fault>, metrics: &SagaMetrics) -> Settle {
    match done {
        Ok(settle) => settle,
        Err(Fault::Park(reason)) => {
            Settle::Park { reason: *reason, failure: run.lock().history.decided.clone() }
        }
        Err(Fault::Store(error)) => {
            if matches!(error, SagaError::LeaseLost(_)) {
                metrics.lost();
            }
            tracing::warn!(saga = %run.id, error = %Error::from(error).report(), "the journal could not be written");
            again(run)
        }
    }
}

/// To be taken up again soon, by whoever is first.
fn again(run: &Run) -> Settle {
    let until = Some(run.now().saturating_add(AGAIN));
    let state = run.lock();
    Settle::Wait { until, failure: state.history.decided.clone(), pokes: state.pokes }
}

/// What a future comes to, or what its panic said.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| said(&*panic))
}

/// Writes how a claim ends; whether that was taken.
async fn end(run: &Run, settle: &Settle) -> bool {
    let clock = &run.shared.clock;
    for attempt in 1..=TRIES {
        match run.shared.store.settle(run.id, run.fence, settle).await {
            Ok(()) => return true,
            Err(SagaError::LeaseLost(_)) => {
                tracing::warn!(saga = %run.id, fence = run.fence, "a saga is another worker's by now");
                return false;
            }
            Err(error) => {
                tracing::warn!(saga = %run.id, attempt, error = %Error::from(error).report(), "a saga could not be settled");
                clock.sleep(Duration::from_millis(100) * attempt).await;
            }
        }
    }
    false
}

/// Extends the leases, and passes on what it learns, until dropped.
async fn beat(shared: &Shared, worker: &str, held: &Held) {
    loop {
        shared.clock.sleep(shared.config.heartbeat).await;
        let known: Vec<_> =
            held.lock().values().map(|(run, abort)| (Arc::clone(run), abort.clone())).collect();
        if known.is_empty() {
            continue;
        }
        let ids: Vec<_> = known.iter().map(|(run, _)| run.id).collect();
        let beats = match shared.store.heartbeat(worker, &ids, shared.config.lease).await {
            Ok(beats) => beats,
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "leases could not be extended");
                continue;
            }
        };
        let beats: HashMap<_, _> = beats.into_iter().map(|beat| (beat.id, beat)).collect();
        for (run, abort) in known {
            let Some(beat) = beats.get(&run.id).filter(|beat| beat.fence == run.fence) else {
                // Settled meanwhile, or another's: what it would write is refused anyway.
                if held.lock().get(&run.id).is_some_and(|(other, _)| Arc::ptr_eq(other, &run)) {
                    abort.abort();
                    held.lock().remove(&run.id);
                }
                continue;
            };
            if beat.pokes > run.lock().pokes {
                let after = run.lock().signals.last().map_or(0, |signal| signal.number);
                match shared.store.signals(run.id, after).await {
                    Ok(signals) => run.hear(signals, beat.pokes),
                    Err(error) => {
                        tracing::warn!(error = %Error::from(error).report(), "signals could not be read");
                    }
                }
            }
            if let Some(asked) = &beat.cancel {
                run.stop(Stopping::Cancelled(asked.clone()));
            }
        }
    }
}

/// Wakes the worker when another process says that something has come.
async fn listen(sagas: &Sagas) {
    loop {
        sagas.store().announced().await;
        sagas.wake().notify_one();
    }
}

/// Parks what nobody knows and forgets what is long over.
async fn keep_house(sagas: &Sagas, metrics: &SagaMetrics, prunes: bool) {
    let (store, config, kinds) = (sagas.store(), sagas.config(), sagas.definitions().kinds());
    loop {
        match store.park_unregistered(&kinds, config.park_unregistered_after, BATCH).await {
            Ok(0) => {}
            Ok(parked) => tracing::error!(parked, "sagas of types no worker knows were parked"),
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "unknown sagas could not be parked");
            }
        }
        match store.parked().await {
            Ok(parked) => metrics.stands(parked),
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "parked sagas could not be counted");
            }
        }
        if let Some(keep) = config.keep.filter(|_| prunes)
            && let Err(error) = store.prune(keep, BATCH).await
        {
            tracing::warn!(error = %Error::from(error).report(), "old sagas could not be forgotten");
        }
        sagas.clock().sleep(HOUSEKEEPING).await;
    }
}
