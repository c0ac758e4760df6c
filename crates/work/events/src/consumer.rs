//! Runs a handler over a durable subscription: claims, keeps the lease, settles what became of each event.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Classify, Context, Deadline, Error, ErrorKind, SharedClock, Source, uuid_v7};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::EventsConfig;
use crate::error::EventsError;
use crate::handling::{Attempts, Outcome, once};
use crate::incoming::{Handler, Incoming};
use crate::log::{Claim, ClaimRequest, Claimed, EventLog, Failure, Settled, SubscriptionSpec, Verdict};
use crate::metrics::EventMetrics;

/// How often a settlement is tried before the lease is left to run out.
const SETTLE_TRIES: u32 = 50;

/// A consumer of one subscription. Any number of them share its partitions, in one process or many.
///
/// An event is handled **at least once**: its key in the handler's effects is [`Incoming::event`]'s source and id. Events
/// of one key are handled in order; one that fails holds up its key until it is done or parked, and nothing else.
#[derive(Debug)]
pub struct Consumer {
    log: Arc<dyn EventLog>,
    spec: SubscriptionSpec,
    config: EventsConfig,
    attempts: Arc<Attempts>,
    clock: SharedClock,
    worker: String,
    metrics: EventMetrics,
}

impl Consumer {
    /// A consumer, and its subscription made when it runs.
    ///
    /// # Errors
    /// [`EventsError::Config`] names the limit that cannot be used.
    pub fn new(
        log: Arc<dyn EventLog>,
        spec: SubscriptionSpec,
        config: EventsConfig,
        clock: SharedClock,
    ) -> Result<Self, EventsError> {
        let attempts = Attempts { policy: config.policy()?, timeout: config.timeout, ..Attempts::default() };
        let worker = uuid_v7(&*clock).to_string();
        let (attempts, metrics) = (Arc::new(attempts), EventMetrics::default());
        Ok(Self { log, spec, config, attempts, clock, worker, metrics })
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: EventMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Runs until `stop` is ready, then finishes what it has begun. Survives the log's absence: it goes on trying.
    ///
    /// # Errors
    /// [`EventsError::Config`] when the subscription is another's.
    pub async fn run(
        &self,
        stop: impl Future<Output = ()> + Send,
        handler: Handler,
    ) -> Result<(), EventsError> {
        tokio::pin!(stop);
        let stopped = CancellationToken::new();
        let work = self.work(stopped.clone(), handler);
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => return ended,
            () = &mut stop => stopped.cancel(),
            () = self.listen() => {}
        }
        work.await
    }

    /// Keeps listening for other processes, also while events are handled, so that what they say does not pile up.
    async fn listen(&self) {
        loop {
            self.log.announced().await;
        }
    }

    async fn work(&self, stop: CancellationToken, handler: Handler) -> Result<(), EventsError> {
        let mut subscribed = false;
        while !stop.is_cancelled() {
            // Made before looking, so that what is published in between is noticed.
            let rung = self.log.rung().notified();
            match self.turn(&mut subscribed, &stop, &handler).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
                Err(error) => {
                    // Forgotten behind our back, perhaps: it is made again.
                    subscribed = false;
                    let (subscription, error) = (self.spec.name(), Error::from(error).report());
                    tracing::warn!(subscription, error, "events could not be claimed");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = rung => {}
                () = self.clock.sleep(self.config.poll_interval) => {}
            }
        }
        Ok(())
    }

    /// Works through one claim; `false` when there was none.
    async fn turn(
        &self,
        subscribed: &mut bool,
        stop: &CancellationToken,
        handler: &Handler,
    ) -> Result<bool, EventsError> {
        if !*subscribed {
            self.log.subscribe(&self.spec).await?;
            *subscribed = true;
        }
        let request = ClaimRequest {
            subscription: self.spec.name().to_owned(),
            worker: self.worker.clone(),
            max: self.config.batch,
            lease: self.config.lease,
            max_attempts: self.attempts.policy.max_attempts(),
        };
        let Some(claim) = self.log.claim(&request).await? else { return Ok(false) };
        if let Some(settled) = self.handle(&claim, stop, handler).await {
            self.settle(&claim, &settled).await;
        }
        Ok(true)
    }

    /// Handles the events of a claim, lane by lane; `None` when the claim was lost meanwhile.
    async fn handle(
        &self,
        claim: &Claim,
        stop: &CancellationToken,
        handler: &Handler,
    ) -> Option<Vec<Settled>> {
        let mut settled = Vec::with_capacity(claim.events.len());
        let mut lanes = lanes(claim, &mut settled);
        let most = usize::try_from(self.config.concurrency).unwrap_or(usize::MAX);
        let mut running: JoinSet<Vec<Settled>> = JoinSet::new();
        let mut renew = self.clock.sleep(self.config.lease / 3);
        let mut cut: Option<Deadline> = None;
        loop {
            while cut.is_none()
                && running.len() < most
                && let Some(lane) = lanes.pop_front()
            {
                running.spawn(self.lane(lane, stop.clone(), handler.clone()));
            }
            if running.is_empty() {
                return Some(settled);
            }
            let left = cut.and_then(|cut| cut.remaining(&*self.clock));
            tokio::select! {
                biased;
                Some(done) = running.join_next() => settled.extend(done.unwrap_or_default()),
                () = &mut renew => {
                    if !self.renew(claim).await {
                        let (subscription, partition) = (self.spec.name(), claim.lease.partition);
                        tracing::warn!(subscription, partition, "a claim was lost while its events were handled");
                        running.shutdown().await;
                        return None;
                    }
                    renew = self.clock.sleep(self.config.lease / 3);
                }
                () = stop.cancelled(), if cut.is_none() => {
                    cut = Some(Deadline::after(&*self.clock, self.config.drain));
                }
                () = self.clock.sleep(left.unwrap_or(Duration::MAX / 4)), if cut.is_some() => {
                    // What is cut off here comes again.
                    running.shutdown().await;
                    return Some(settled);
                }
            }
        }
    }

    /// The lease is only lost when the log says so; a log that does not answer is asked again later.
    async fn renew(&self, claim: &Claim) -> bool {
        match self.log.renew(&claim.lease, self.config.lease).await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "a claim could not be renewed");
                true
            }
        }
    }

    /// One lane's events one after the other; after one that failed the others wait.
    fn lane(
        &self,
        lane: VecDeque<Claimed>,
        stop: CancellationToken,
        handler: Handler,
    ) -> impl Future<Output = Vec<Settled>> + Send + 'static {
        let (clock, attempts) = (Arc::clone(&self.clock), Arc::clone(&self.attempts));
        let (metrics, subscription) = (self.metrics.clone(), self.spec.name().to_owned());
        async move {
            let mut settled = Vec::with_capacity(lane.len());
            let mut behind = false;
            for claimed in lane {
                let position = claimed.stored.position;
                if behind {
                    settled.push(Settled { position, verdict: Verdict::Behind });
                    continue;
                }
                if stop.is_cancelled() {
                    break;
                }
                let began = clock.now();
                let verdict = attempt(&clock, &attempts, &subscription, claimed, &handler).await;
                metrics.handled(&subscription, &verdict, clock.now().saturating_duration_since(began));
                behind = matches!(verdict, Verdict::Retry(..));
                settled.push(Settled { position, verdict });
            }
            settled
        }
    }

    async fn settle(&self, claim: &Claim, settled: &[Settled]) {
        let (subscription, partition) = (self.spec.name(), claim.lease.partition);
        for _ in 0..SETTLE_TRIES {
            match self.log.settle(claim, settled).await {
                Ok(true) => return,
                Ok(false) => {
                    self.metrics.stale(subscription);
                    tracing::warn!(
                        subscription,
                        partition,
                        "a settlement was refused: the claim is another's"
                    );
                    return;
                }
                Err(error) => {
                    tracing::warn!(subscription, error = %Error::from(error).report(), "events could not be settled");
                }
            }
            self.clock.sleep(Duration::from_millis(100)).await;
        }
        tracing::error!(subscription, partition, "the log took no settlement; the events come again");
    }
}

/// The events of a claim by their keys, and at once the verdict on those that have to wait.
fn lanes(claim: &Claim, settled: &mut Vec<Settled>) -> VecDeque<VecDeque<Claimed>> {
    let mut lanes: VecDeque<VecDeque<Claimed>> = VecDeque::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for event in &claim.events {
        if event.held {
            settled.push(Settled { position: event.stored.position, verdict: Verdict::Behind });
            continue;
        }
        let lane = event.stored.message.lane();
        let index = lane.map_or(lanes.len(), |lane| *known.entry(lane).or_insert(lanes.len()));
        match lanes.get_mut(index) {
            Some(lane) => lane.push_back(event.clone()),
            None => lanes.push_back(VecDeque::from([event.clone()])),
        }
    }
    lanes
}

async fn attempt(
    clock: &SharedClock,
    attempts: &Attempts,
    subscription: &str,
    claimed: Claimed,
    handler: &Handler,
) -> Verdict {
    let Claimed { stored, attempt, .. } = claimed;
    let deadline = Deadline::after(&**clock, attempts.timeout);
    let context = stored.message.context.resume(Source::Event, &**clock);
    let trace_id = context.trace.trace_id_hex();
    let (id, position) = (stored.message.event.id().to_owned(), stored.position);
    let span = tracing::info_span!("event", subscription, position, id, attempt, trace_id);
    let incoming = Incoming {
        topic: stored.message.topic,
        event: stored.message.event,
        context: fresh(context, deadline),
        position,
        attempt,
    };
    let work = || handler.call(incoming);
    let failed = match once(clock, attempts.timeout, work).instrument(span).await {
        Ok(()) => return Verdict::Done,
        Err(error) => error,
    };
    match attempts.judge(failed, attempt) {
        Outcome::Again(delay, error) => Verdict::Retry(delay, Failure::from(&error)),
        Outcome::Park(error) => {
            tracing::error!(subscription, position, attempt, error = %error.report(), "an event was parked");
            Verdict::Park(Failure::from(&error))
        }
    }
}

/// The deadline of the work that published says nothing about those who hear of it later.
pub(crate) fn fresh(mut context: Context, deadline: Deadline) -> Context {
    context.deadline = deadline;
    context
}

/// Events forgotten in one transaction.
const FORGOTTEN: u32 = 1000;

/// Forgets what is older than this and done with, in many small steps; says how much.
#[cfg(all(feature = "module", any(feature = "sqlite", feature = "postgres")))]
pub(crate) async fn forget(log: &dyn EventLog, keep: Duration) -> Result<u64, EventsError> {
    let mut forgotten = 0;
    loop {
        let count = log.prune(keep, FORGOTTEN).await?;
        forgotten += count;
        if count < u64::from(FORGOTTEN) {
            return Ok(forgotten);
        }
    }
}

/// Measures for ever how far subscriptions lag.
#[cfg(feature = "module")]
pub(crate) async fn measure(
    log: &dyn EventLog,
    metrics: &EventMetrics,
    every: Duration,
    clock: &SharedClock,
) {
    loop {
        match log.lag().await {
            Ok(lags) => metrics.stands(&lags, clock.utc()),
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "the lag could not be measured");
            }
        }
        clock.sleep(every).await;
    }
}

/// Forgets old events until `stop` is ready. Any number may run at once.
pub async fn keep_house(
    log: &dyn EventLog,
    config: &EventsConfig,
    clock: &SharedClock,
    stop: impl Future<Output = ()> + Send,
) {
    let Some(keep) = config.keep else { return stop.await };
    tokio::pin!(stop);
    loop {
        let more = match log.prune(keep, FORGOTTEN).await {
            Ok(count) => count >= u64::from(FORGOTTEN),
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "old events could not be forgotten");
                false
            }
        };
        let pause = if more { Duration::ZERO } else { config.housekeeping };
        tokio::select! {
            () = &mut stop => return,
            () = clock.sleep(pause) => {}
        }
    }
}
