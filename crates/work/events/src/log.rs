//! The port of the event log: topics that are appended to, and subscriptions that know how far they have read.

use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Error, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::EventsError;
use crate::message::{Message, SLOTS, check_name};
use crate::publisher::Publisher;

/// A message in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its place in the topic, from 1. A later reader never finds an earlier place filled that was empty before.
    pub position: u64,
    /// When it was published, by the log's clock.
    pub published_at: Timestamp,
    /// The message.
    pub message: Message,
}

/// What a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Everything up to here may have been forgotten.
    pub pruned: u64,
    /// The newest position; 0 when nothing was published yet.
    pub newest: u64,
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With everything the log still has.
    #[default]
    Beginning,
    /// With what is published from now on.
    End,
    /// After a position.
    After(u64),
}

/// A durable subscription to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SubscriptionSpec {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) partitions: u32,
    pub(crate) from: From,
}

impl SubscriptionSpec {
    /// A subscription to a topic, from its beginning, in four partitions.
    ///
    /// # Errors
    /// [`EventsError::Config`] for a name or topic out of the alphabet.
    pub fn new(name: impl Into<String>, topic: impl Into<String>) -> Result<Self, EventsError> {
        let (name, topic) = (name.into(), topic.into());
        check_name("subscription", &name)?;
        check_name("topic", &topic)?;
        Ok(Self { name, topic, partitions: 4, from: From::Beginning })
    }

    /// Where it begins when it is new.
    pub fn from(mut self, from: From) -> Self {
        self.from = from;
        self
    }

    /// How many consumers can work at once: keys are spread over so many partitions, each worked by one consumer at a
    /// time. Settled when the subscription is made.
    ///
    /// # Errors
    /// [`EventsError::Config`] unless it is 1 to 64.
    pub fn partitions(mut self, partitions: u32) -> Result<Self, EventsError> {
        if !(1..=64).contains(&partitions) || u64::from(partitions) > SLOTS {
            return Err(EventsError::config("partitions", "must be 1 to 64"));
        }
        self.partitions = partitions;
        Ok(self)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The subscription.
    pub subscription: String,
    /// The consumer's process.
    pub worker: String,
    /// At most so many events.
    pub max: u32,
    /// How long the claim holds without being renewed.
    pub lease: Duration,
    /// After how many lost consumers an event is parked.
    pub max_attempts: u32,
}

/// Proof of a claim: of which partition, and which of its claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The subscription.
    pub subscription: String,
    /// Its partition.
    pub partition: u32,
    /// Grows with every claim; what is said under an older one is refused.
    pub fence: u64,
}

/// One event of a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The event.
    pub stored: Stored,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// An earlier event of its key waits for another attempt: it must be answered by [`Verdict::Behind`].
    pub held: bool,
    /// It has failed before and is not counted by the cursor any more.
    pub again: bool,
}

/// Part of a subscription, held by one consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The proof.
    pub lease: Lease,
    /// Events, in the order of their positions: first those tried again, then new ones.
    pub events: Vec<Claimed>,
    /// How far the partition has been read when all new events are answered.
    pub through: u64,
}

/// Why an attempt failed, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's kind.
    pub kind: String,
    /// Its stable code.
    pub code: String,
    /// Its message, without sources.
    pub message: String,
}

impl std::convert::From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            code: error.code().to_owned(),
            message: error.message().chars().take(1000).collect(),
        }
    }
}

/// What became of a claimed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It failed and comes again after the delay; later events of its key wait for it.
    Retry(Duration, Failure),
    /// It failed for good: it is set aside, and its key goes on.
    Park(Failure),
    /// It was not tried, because an earlier event of its key waits.
    Behind,
}

/// The verdict on one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub position: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// An event set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// The event.
    pub stored: Stored,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed last.
    pub failure: Option<Failure>,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// Its name.
    pub subscription: String,
    /// Its topic.
    pub topic: String,
    /// Events it has not read yet.
    pub unread: u64,
    /// When the oldest of them was published.
    pub oldest_unread: Option<Timestamp>,
    /// Events that wait for another attempt, or behind one that does.
    pub retrying: u64,
    /// Events set aside.
    pub parked: u64,
    /// Partitions a consumer holds now.
    pub claimed: u32,
    /// Its partitions.
    pub partitions: u32,
}

/// Topics that are appended to, and subscriptions that know how far they have read.
///
/// A reader never skips an event: positions are given in one order to what is committed, not to what may be. Laws every
/// log passes are in `laws` (feature `testkit`).
#[async_trait]
pub trait EventLog: Publisher + std::fmt::Debug {
    /// Events after a position, oldest first.
    ///
    /// Fails with [`EventsError::Gone`] when some of them have been forgotten.
    async fn read(&self, topic: &str, after: u64, max: u32) -> Result<Vec<Stored>, EventsError>;
    /// What a topic holds; nothing for one never published to.
    async fn bounds(&self, topic: &str) -> Result<Bounds, EventsError>;
    /// Makes a subscription unless it is there; says whether it was made. Refuses one of the same name and another
    /// topic or number of partitions.
    async fn subscribe(&self, spec: &SubscriptionSpec) -> Result<bool, EventsError>;
    /// Forgets a subscription with all it knows; says whether it was there.
    async fn unsubscribe(&self, subscription: &str) -> Result<bool, EventsError>;
    /// Claims a partition that has something to do, the one longest without a claim first.
    ///
    /// A claim that runs out is a failed attempt of the event that was worked on: the events of a lost claim are handed
    /// out one by one until it is found.
    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, EventsError>;
    /// Extends a claim; `false` when it no longer holds.
    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, EventsError>;
    /// Ends a claim with what became of its events, all or nothing. New events without a verdict, and those after the
    /// first such, come again. `false` when the claim no longer holds; nothing is changed then.
    async fn settle(&self, claim: &Claim, settled: &[Settled]) -> Result<bool, EventsError>;
    /// Events set aside, of one tenant's namespace or all, oldest first, after a position.
    async fn parked(
        &self,
        subscription: &str,
        tenant: Option<&str>,
        after: u64,
        max: u32,
    ) -> Result<Vec<Parked>, EventsError>;
    /// Hands parked events out again with fresh attempts: one, or all. Says how many.
    async fn redrive(&self, subscription: &str, position: Option<u64>) -> Result<u64, EventsError>;
    /// Forgets one parked event; says whether it was there.
    async fn discard(&self, subscription: &str, position: u64) -> Result<bool, EventsError>;
    /// Lets a subscription read again what it has read after a position: those events are handed out anew, in order, whether
    /// they were done, waited for another attempt or were parked. What is said about claims made before is refused.
    ///
    /// Fails with [`EventsError::Gone`] when some of them have been forgotten already; what retention takes at that very
    /// moment is not handed out again.
    async fn rewind(&self, subscription: &str, after: u64) -> Result<(), EventsError>;
    /// How every subscription stands.
    async fn lag(&self) -> Result<Vec<Lag>, EventsError>;
    /// Forgets events published longer ago than `keep` that every subscription of their topic has done with; at most so
    /// many in one call. Says how many.
    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, EventsError>;
    /// Rung when this process has published something, and when [`announced`](Self::announced) hears of another that has.
    fn rung(&self) -> &Notify;
    /// Listens for other processes, and is ready when one of them may have published something; for ever pending where
    /// nobody tells. Whoever waits for [`rung`](Self::rung) calls it again and again beside that; of many callers one listens.
    async fn announced(&self) {
        std::future::pending::<()>().await;
    }
}

/// How far the cursor may move: to the claim's end, or to before the first new event without a verdict.
pub(crate) fn reached(claim: &Claim, settled: &[Settled], cursor: u64) -> u64 {
    let answered = |position: u64| settled.iter().any(|settled| settled.position == position);
    let mut fresh = claim.events.iter().filter(|event| !event.again).map(|event| event.stored.position);
    match fresh.find(|position| !answered(*position)) {
        Some(first) => first.saturating_sub(1).max(cursor),
        None => claim.through.max(cursor),
    }
}

/// Verdicts that count: on retried events, and on new ones the cursor moves past.
pub(crate) fn counted<'s>(
    claim: &'s Claim,
    settled: &'s [Settled],
    through: u64,
) -> Vec<(&'s Claimed, &'s Verdict)> {
    let of = |settled: &'s Settled| {
        let event = claim.events.iter().find(|event| event.stored.position == settled.position)?;
        (event.again || settled.position <= through).then_some((event, &settled.verdict))
    };
    settled.iter().filter_map(of).collect()
}

/// What is kept of an event whose consumer was lost.
pub(crate) fn lost() -> Failure {
    Failure {
        kind: "timeout".to_owned(),
        code: "events.lease_expired".to_owned(),
        message: "the consumer was not heard from before its lease ran out".to_owned(),
    }
}

impl SubscriptionSpec {
    /// Refuses to be another subscription than the one of its name.
    pub(crate) fn same(&self, other: &Self) -> Result<(), EventsError> {
        if self.topic != other.topic {
            let problem = format!("reads topic `{}` already, not `{}`", self.topic, other.topic);
            return Err(EventsError::config(&self.name, problem));
        }
        if self.partitions != other.partitions {
            let problem = format!("has {} partitions, not {}", self.partitions, other.partitions);
            return Err(EventsError::config(&self.name, problem));
        }
        Ok(())
    }
}
