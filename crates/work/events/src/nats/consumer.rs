//! Consuming the stream by a durable pull consumer.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{AckKind, Message as Delivered};
use futures_util::StreamExt;
use runtime_kernel::{Deadline, Error, SharedClock, Source};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{NatsEvents, broker, durable, wire};
use crate::config::EventsConfig;
use crate::consumer::fresh;
use crate::error::EventsError;
use crate::handling::{Attempts, Outcome, once};
use crate::incoming::{Handler, Incoming};
use crate::log::{Failure, Verdict, lost};
use crate::message::check_name;
use crate::metrics::EventMetrics;

/// A member of a group that shares the events of a topic. Any number of processes may be members.
///
/// An event is handled **at least once**. One that fails comes again after its delay; when its attempts are used up, or
/// its consumer was lost as often, it is kept in the stream `<name>-parked` and the group goes on.
#[derive(Debug)]
pub struct NatsConsumer {
    events: NatsEvents,
    topic: String,
    group: String,
    ordered: bool,
    config: EventsConfig,
    attempts: Arc<Attempts>,
    clock: SharedClock,
    metrics: EventMetrics,
}

impl NatsConsumer {
    /// A member of a group.
    ///
    /// # Errors
    /// [`EventsError::Config`] names what cannot be used.
    pub fn new(
        events: NatsEvents,
        topic: impl Into<String>,
        group: impl Into<String>,
        config: EventsConfig,
        clock: SharedClock,
    ) -> Result<Self, EventsError> {
        let (topic, group) = (topic.into(), group.into());
        check_name("topic", &topic)?;
        check_name("group", &group)?;
        let attempts = Attempts { policy: config.policy()?, timeout: config.timeout, ..Attempts::default() };
        let (attempts, metrics) = (Arc::new(attempts), EventMetrics::default());
        Ok(Self { events, topic, group, ordered: false, config, attempts, clock, metrics })
    }

    /// Hands out one event at a time to the whole group, in order: `JetStream` knows no order per key. Settled when the
    /// group is made.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: EventMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Makes the group, with everything the stream has of the topic, unless it is there.
    ///
    /// # Errors
    /// [`EventsError::Broker`] when the server refuses, as it does a group made with other settings.
    pub async fn subscribe(&self) -> Result<PullConsumer, EventsError> {
        let pending = if self.ordered { 1 } else { i64::from(self.config.concurrency).max(1) * 64 };
        let name = format!("{}={}", durable(&self.group), durable(&self.topic));
        let config = pull::Config {
            durable_name: Some(name),
            filter_subject: self.events.subject(&self.topic),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.config.lease,
            // The server would drop an event silently after its last attempt; here it is parked.
            max_deliver: -1,
            max_ack_pending: pending,
            deliver_policy: consumer::DeliverPolicy::All,
            ..pull::Config::default()
        };
        let stream =
            self.events.context.get_stream_no_info(&self.events.options.stream).await.map_err(broker)?;
        stream.create_consumer(config).await.map_err(broker)
    }

    /// Runs until `stop` is ready, then finishes what it has begun. Survives the server's absence: it goes on trying.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send, handler: Handler) {
        tokio::pin!(stop);
        let most = if self.ordered { 1 } else { usize::try_from(self.config.concurrency).unwrap_or(1) };
        let mut running: JoinSet<()> = JoinSet::new();
        let mut group: Option<PullConsumer> = None;
        loop {
            let turn = self.turn(&mut group, &mut running, most, &handler);
            let failed = tokio::select! {
                biased;
                () = &mut stop => break,
                turned = turn => turned.err(),
            };
            if let Some(error) = failed {
                // Deleted behind our back, perhaps: it is made again.
                group = None;
                let error = Error::from(error).report();
                tracing::warn!(group = self.group, topic = self.topic, error, "events could not be fetched");
                tokio::select! {
                    () = &mut stop => break,
                    () = self.clock.sleep(self.config.poll_interval) => {}
                }
            }
        }
        let drain = Deadline::after(&*self.clock, self.config.drain);
        while let Ok(Some(_)) = drain.run(&*self.clock, running.join_next()).await {}
        running.shutdown().await;
    }

    /// Fetches what there is room for and starts it.
    async fn turn(
        &self,
        group: &mut Option<PullConsumer>,
        running: &mut JoinSet<()>,
        most: usize,
        handler: &Handler,
    ) -> Result<(), EventsError> {
        while running.len() >= most {
            running.join_next().await;
        }
        let consumer = match group {
            Some(consumer) => consumer,
            None => group.insert(self.subscribe().await?),
        };
        let free = most - running.len();
        let batch = consumer.batch().max_messages(free).expires(self.config.poll_interval.max(MIN_EXPIRY));
        let mut batch = batch.messages().await.map_err(broker)?;
        while let Some(delivered) = batch.next().await {
            running.spawn(self.handle(delivered.map_err(broker)?, handler.clone()));
        }
        while running.try_join_next().is_some() {}
        Ok(())
    }

    fn handle(&self, delivered: Delivered, handler: Handler) -> impl Future<Output = ()> + Send + 'static {
        let (events, attempts, clock) =
            (self.events.clone(), Arc::clone(&self.attempts), Arc::clone(&self.clock));
        let (topic, group, lease) = (self.topic.clone(), self.group.clone(), self.config.lease);
        let metrics = self.metrics.clone();
        async move {
            let began = clock.now();
            let judging = judge(&clock, &attempts, &topic, &delivered, &handler);
            let verdict = keep_alive(&clock, &delivered, lease, judging).await;
            metrics.handled(&group, &verdict, clock.now().saturating_duration_since(began));
            let ack = match &verdict {
                Verdict::Done | Verdict::Behind => AckKind::Ack,
                Verdict::Retry(delay, _) => AckKind::Nak(Some(*delay)),
                Verdict::Park(failure) => match events.park(&group, &topic, &delivered, failure).await {
                    Ok(()) => {
                        tracing::error!(group, topic, code = failure.code, "an event was parked");
                        AckKind::Term
                    }
                    Err(error) => {
                        let error = Error::from(error).report();
                        tracing::error!(group, topic, error, "an event could not be parked and comes again");
                        AckKind::Nak(Some(Duration::from_secs(1)))
                    }
                },
            };
            // Confirmed, so that what is done is known to be.
            if let Err(error) = delivered.double_ack_with(ack).await {
                tracing::warn!(group, topic, error, "the server took no verdict; the event comes again");
            }
        }
    }
}

/// The shortest wait of a fetch that is worth a round trip.
const MIN_EXPIRY: Duration = Duration::from_millis(100);

/// Tells the server that the event is being worked on.
async fn keep_alive<T>(
    clock: &SharedClock,
    delivered: &Delivered,
    lease: Duration,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = clock.sleep(lease / 3) => {
                if let Err(error) = delivered.ack_with(AckKind::Progress).await {
                    tracing::debug!(error, "the server was not told of progress");
                }
            }
        }
    }
}

async fn judge(
    clock: &SharedClock,
    attempts: &Attempts,
    topic: &str,
    delivered: &Delivered,
    handler: &Handler,
) -> Verdict {
    let (position, attempt) = match delivered.info() {
        Ok(info) => (info.stream_sequence, u32::try_from(info.delivered).unwrap_or(u32::MAX)),
        Err(error) => return Verdict::Park(Failure::from(&Error::from(broker(error)))),
    };
    if attempt > attempts.policy.max_attempts() {
        return Verdict::Park(lost());
    }
    let message = match wire::read(topic, delivered.headers.as_ref(), delivered.payload.clone()) {
        Ok(message) => message,
        Err(error) => return Verdict::Park(Failure::from(&Error::from(error))),
    };
    let deadline = Deadline::after(&**clock, attempts.timeout);
    let context = fresh(message.context.resume(Source::Event, &**clock), deadline);
    let trace_id = context.trace.trace_id_hex();
    let span = tracing::info_span!("event", topic, position, id = message.event.id(), attempt, trace_id);
    let incoming = Incoming { topic: message.topic, event: message.event, context, position, attempt };
    match once(clock, attempts.timeout, || handler.call(incoming)).instrument(span).await {
        Ok(()) => Verdict::Done,
        Err(error) => match attempts.judge(error, attempt) {
            Outcome::Again(delay, error) => Verdict::Retry(delay, Failure::from(&error)),
            Outcome::Park(error) => Verdict::Park(Failure::from(&error)),
        },
    }
}
