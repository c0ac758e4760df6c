//! The relay: claims what waits in a channel, publishes it, settles what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime_events::Publisher;
use runtime_kernel::{Classify, Deadline, Error, ErrorKind, Retry, SharedClock};
use runtime_resilience::SharedRng;

use crate::config::OutboxConfig;
use crate::error::OutboxError;
use crate::inbox::InboxStore;
use crate::metrics::OutboxMetrics;
use crate::publish::{Publishing, Turn};
use crate::store::{Channel, Claim, ClaimRequest, OutboxStore};

/// How often a settlement is tried before the lease is left to run out.
const SETTLE_TRIES: u32 = 50;

/// Empties a channel of the outbox into a sink. Any number of them share a channel, in one process or many.
///
/// A message is published **at least once**; those of one key in order. One that fails holds up its key until it is sent
/// or parked, and nothing else.
pub struct Relay {
    store: Arc<dyn OutboxStore>,
    channel: Channel,
    publishing: Publishing,
    max_attempts: u32,
}

/// What a turn found.
enum Found {
    Nothing,
    /// Something; the soonest of what failed comes again after this.
    Some(Option<Duration>),
    /// The sink may be away; it is left alone for so long.
    Away(Duration),
}

impl Relay {
    /// A relay of a channel into a sink.
    ///
    /// # Errors
    /// [`OutboxError::Invalid`] names the limit that cannot be used.
    pub fn new(
        store: Arc<dyn OutboxStore>,
        channel: Channel,
        sink: Arc<dyn Publisher>,
        config: OutboxConfig,
        clock: SharedClock,
    ) -> Result<Self, OutboxError> {
        let policy = config.policy()?;
        let max_attempts = policy.max_attempts();
        let (rng, metrics) = (SharedRng::from_os(), OutboxMetrics::default());
        Ok(Self {
            store,
            channel,
            publishing: Publishing { sink, config, policy, clock, rng, metrics },
            max_attempts,
        })
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: OutboxMetrics) -> Self {
        self.publishing.metrics = metrics;
        self
    }

    /// Runs until `stop` is ready, then finishes what it has begun, for `drain` at most. Survives the absence of the
    /// database and of the sink: it goes on trying.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let (clock, config) = (&self.publishing.clock, &self.publishing.config);
        let (mut idle, mut outages) = (config.poll_interval, 0_u32);
        let mut soonest: Option<Duration> = None;
        loop {
            // Made before looking, so that what is added in between is noticed.
            let rung = self.store.rung().notified();
            let found = {
                let turn = self.turn(outages);
                tokio::pin!(turn);
                tokio::select! {
                    biased;
                    found = &mut turn => found,
                    () = &mut stop => {
                        // What is cut off here comes again.
                        let _ = Deadline::after(&**clock, config.drain).run(&**clock, turn).await;
                        return;
                    }
                }
            };
            let wait = match found {
                Found::Some(next) => {
                    (idle, outages) = (config.poll_interval, 0);
                    soonest = soonest.into_iter().chain(next).min();
                    Duration::ZERO
                }
                Found::Nothing => {
                    let wait = soonest.unwrap_or(idle).min(idle);
                    soonest =
                        soonest.map(|soonest| soonest.saturating_sub(wait)).filter(|left| !left.is_zero());
                    idle = idle.saturating_mul(2).min(config.max_poll_interval);
                    wait
                }
                Found::Away(pause) => {
                    outages = outages.saturating_add(1);
                    // What is added meanwhile shows whether the sink is back, but not at once.
                    tokio::select! {
                        () = &mut stop => return,
                        () = clock.sleep(config.poll_interval.min(pause)) => {}
                    }
                    pause.saturating_sub(config.poll_interval)
                }
            };
            let waiting = async {
                if wait.is_zero() {
                    return tokio::task::yield_now().await;
                }
                tokio::select! {
                    () = clock.sleep(wait) => {}
                    () = rung => {}
                    () = self.store.announced() => {}
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = waiting => {}
            }
        }
    }

    async fn turn(&self, outages: u32) -> Found {
        let config = &self.publishing.config;
        let request = ClaimRequest {
            channel: self.channel.clone(),
            max: config.batch,
            lease: config.lease,
            max_attempts: self.max_attempts,
            on_parked: config.on_parked,
        };
        let claim = match self.store.claim(&request).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return Found::Nothing,
            Err(error) => {
                let (kind, error) = (error.kind(), Error::from(error).report());
                tracing::warn!(channel = %self.channel, error, %kind, "messages could not be claimed");
                return Found::Nothing;
            }
        };
        let Some(turn) = self.publish(&claim, outages).await else { return Found::Some(None) };
        self.settle(&claim, &turn).await;
        match turn.away {
            Some(error) => {
                if outages == 0 {
                    let error = error.report();
                    tracing::warn!(channel = %self.channel, error, "the sink takes nothing");
                }
                let asked =
                    if error.kind() == ErrorKind::RateLimited { error.retry() } else { Retry::Backoff };
                Found::Away(self.publishing.pause(outages, asked))
            }
            None => Found::Some(turn.soonest),
        }
    }

    /// Publishes while the lease is kept; `None` when it was lost.
    async fn publish(&self, claim: &Claim, outages: u32) -> Option<Turn> {
        let (clock, lease) = (&self.publishing.clock, self.publishing.config.lease);
        let publishing = self.publishing.publish(claim, outages);
        tokio::pin!(publishing);
        loop {
            tokio::select! {
                biased;
                turn = &mut publishing => return Some(turn),
                () = clock.sleep(lease / 3) => match self.store.renew(&claim.lease, lease).await {
                    Ok(true) => {}
                    Ok(false) => {
                        self.stale();
                        return None;
                    }
                    // Only lost when the outbox says so.
                    Err(error) => {
                        let error = Error::from(error).report();
                        tracing::warn!(channel = %self.channel, error, "a claim could not be renewed");
                    }
                },
            }
        }
    }

    async fn settle(&self, claim: &Claim, turn: &Turn) {
        for _ in 0..SETTLE_TRIES {
            match self.store.settle(&claim.lease, &turn.settled).await {
                Ok(true) => return,
                Ok(false) => return self.stale(),
                Err(error) => {
                    let error = Error::from(error).report();
                    tracing::warn!(channel = %self.channel, error, "messages could not be settled");
                }
            }
            self.publishing.clock.sleep(Duration::from_millis(100)).await;
        }
        tracing::error!(channel = %self.channel, "the outbox took no settlement; the messages are sent again");
    }

    fn stale(&self) {
        self.publishing.metrics.stale(self.channel.as_str());
        tracing::warn!(channel = %self.channel, "a claim was lost while its messages were published");
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("store", &self.store)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// Rows forgotten in one transaction.
const FORGOTTEN: u32 = 1000;

/// Forgets by many small steps what a step finds to be old; says how much.
#[cfg(all(feature = "module", any(feature = "sqlite", feature = "postgres")))]
pub(crate) async fn forget<W>(step: impl Fn(u32) -> W) -> Result<u64, OutboxError>
where
    W: Future<Output = Result<u64, OutboxError>>,
{
    let mut forgotten = 0;
    loop {
        let count = step(FORGOTTEN).await?;
        forgotten += count;
        if count < u64::from(FORGOTTEN) {
            return Ok(forgotten);
        }
    }
}

/// Measures the lag once.
pub(crate) async fn measure(outbox: &dyn OutboxStore, metrics: &OutboxMetrics) {
    match outbox.stats().await {
        Ok(stats) => metrics.stands(&stats),
        Err(error) => {
            tracing::warn!(error = %Error::from(error).report(), "the lag could not be measured");
        }
    }
}

/// Forgets what is old and measures the lag until `stop` is ready. Any number may run at once.
pub async fn keep_house(
    outbox: &dyn OutboxStore,
    inbox: &dyn InboxStore,
    config: &OutboxConfig,
    metrics: &OutboxMetrics,
    clock: &SharedClock,
    stop: impl Future<Output = ()> + Send,
) {
    tokio::pin!(stop);
    loop {
        let mut more = false;
        for done in
            [outbox.prune(config.keep_sent, FORGOTTEN).await, inbox.prune(config.keep_seen, FORGOTTEN).await]
        {
            match done {
                Ok(count) => more |= count >= u64::from(FORGOTTEN),
                Err(error) => {
                    tracing::warn!(error = %Error::from(error).report(), "old messages could not be forgotten");
                }
            }
        }
        measure(outbox, metrics).await;
        let pause = if more { Duration::ZERO } else { config.housekeeping };
        tokio::select! {
            () = &mut stop => return,
            () = clock.sleep(pause) => {}
        }
    }
}
