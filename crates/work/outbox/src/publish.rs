//! Publishes one claim, and finds out who is to blame when that fails: a message, or the sink.
//!
//! A batch that fails is tried message by message. Errors that speak of the message count against it. Others may as well
//! mean that the sink is away, so they count only when there is evidence: the sink took something later in the same turn,
//! or the message has failed like that before. So an outage parks nothing, however long it lasts, and a message the sink
//! cannot take is parked as soon as others get through.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use runtime_events::{Message, Publisher, Receipt};
use runtime_kernel::{Deadline, Error, ErrorKind, Retry, SharedClock};
use runtime_resilience::{RetryPolicy, SharedRng};

use crate::config::OutboxConfig;
use crate::metrics::OutboxMetrics;
use crate::row::lane;
use crate::store::{Claim, Claimed, Failure, Settled, Verdict};

/// After so many failures in a row that may mean an outage, the rest of a claim is left alone.
const TRIES: u32 = 3;

const PANICKED: &str = "outbox.panicked";

/// Publishes to one sink.
pub(crate) struct Publishing {
    pub(crate) sink: Arc<dyn Publisher>,
    pub(crate) config: OutboxConfig,
    pub(crate) policy: RetryPolicy,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) metrics: OutboxMetrics,
}

/// What became of a claim.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) settled: Vec<Settled>,
    /// The sink took nothing, and the fault may be its own.
    pub(crate) away: Option<Error>,
    /// When the first of the failed messages comes again.
    pub(crate) soonest: Option<Duration>,
}

/// One message's try.
struct Try<'c> {
    claimed: &'c Claimed,
    error: Option<Error>,
}

impl Publishing {
    /// Publishes the messages of a claim; `outages` is how many turns in a row found the sink away.
    pub(crate) async fn publish(&self, claim: &Claim, outages: u32) -> Turn {
        let channel = claim.lease.channel.as_str();
        let messages: Vec<Message> = claim.messages.iter().map(|claimed| claimed.message.clone()).collect();
        let tries = match (self.call(channel, &messages).await, claim.messages.as_slice()) {
            (Ok(()), all) => all.iter().map(|claimed| Try { claimed, error: None }).collect(),
            (Err(error), [only]) => vec![Try { claimed: only, error: Some(error) }],
            (Err(error), all) => {
                tracing::debug!(channel, error = %error.report(), "a batch was not taken; its messages are tried one by one");
                self.one_by_one(channel, all).await
            }
        };
        self.judge(channel, tries, outages)
    }

    async fn one_by_one<'c>(&self, channel: &str, all: &'c [Claimed]) -> Vec<Try<'c>> {
        // New ones between those that failed before, so that the sink's state shows.
        let (again, fresh): (Vec<_>, Vec<_>) = all.iter().partition(|claimed| claimed.again);
        let (mut again, mut fresh) = (again.into_iter(), fresh.into_iter());
        let mut tries = Vec::with_capacity(all.len());
        let (mut failed, mut in_a_row) = (HashSet::new(), 0);
        loop {
            let pair = [again.next(), fresh.next()];
            if pair.iter().all(Option::is_none) {
                return tries;
            }
            for claimed in pair.into_iter().flatten() {
                let lane = lane(&claimed.message);
                if lane.as_ref().is_some_and(|lane| failed.contains(lane)) {
                    continue;
                }
                let error = self.call(channel, std::slice::from_ref(&claimed.message)).await.err();
                in_a_row =
                    if error.as_ref().is_some_and(|error| !is_its_own(error)) { in_a_row + 1 } else { 0 };
                if error.is_some() {
                    failed.extend(lane);
                }
                tries.push(Try { claimed, error });
                if in_a_row >= TRIES {
                    return tries;
                }
            }
        }
    }

    fn judge(&self, channel: &str, tries: Vec<Try<'_>>, outages: u32) -> Turn {
        let last_taken = tries.iter().rposition(|one| one.error.is_none());
        let mut turn = Turn::default();
        for (place, Try { claimed, error }) in tries.into_iter().enumerate() {
            let Some(error) = error else {
                turn.settled.push(Settled { seq: claimed.seq, verdict: Verdict::Sent });
                continue;
            };
            let counts =
                is_its_own(&error) || claimed.attempts > 0 || last_taken.is_some_and(|last| last > place);
            let (verdict, delay) = self.verdict(claimed, &error, counts, outages);
            let parked = delay.is_none();
            self.metrics.published(channel, if parked { "parked" } else { "retry" }, 1);
            if parked {
                let (seq, id) = (claimed.seq, claimed.message.event.id());
                tracing::error!(channel, seq, id, error = %error.report(), "a message was parked");
            }
            turn.soonest = turn.soonest.into_iter().chain(delay).min();
            turn.settled.push(Settled { seq: claimed.seq, verdict });
            if !counts && last_taken.is_none() {
                turn.away = Some(error);
            }
        }
        turn
    }

    fn verdict(
        &self,
        claimed: &Claimed,
        error: &Error,
        counts: bool,
        outages: u32,
    ) -> (Verdict, Option<Duration>) {
        let failure = Failure::from(error);
        if !counts {
            let delay = self.pause(outages, error.retry());
            return (Verdict::Retry { delay, attempts: claimed.attempts, failure }, Some(delay));
        }
        let attempts = claimed.attempts.saturating_add(1);
        // An operator decides how often is enough, not the error: a receiver that refuses may be mended meanwhile.
        let retry = if error.retry() == Retry::Never { Retry::Backoff } else { error.retry() };
        match self.policy.next_delay(attempts, retry, &mut self.rng.clone()) {
            Some(delay) => (Verdict::Retry { delay, attempts, failure }, Some(delay)),
            None => (Verdict::Park { attempts, on_parked: self.config.on_parked, failure }, None),
        }
    }

    /// How long a sink that may be away is left alone.
    pub(crate) fn pause(&self, outages: u32, asked: Retry) -> Duration {
        let longest = self.config.max_poll_interval;
        let pause = self.config.poll_interval.saturating_mul(1 << outages.min(16)).min(longest);
        match asked {
            Retry::After(asked) => asked.clamp(pause, self.config.retry.max_retry_after.max(pause)),
            _ => pause,
        }
    }

    async fn call(&self, channel: &str, messages: &[Message]) -> Result<(), Error> {
        let began = self.clock.now();
        let work = AssertUnwindSafe(self.sink.publish(messages)).catch_unwind();
        let called = Deadline::after(&*self.clock, self.config.timeout).run(&*self.clock, work).await;
        self.metrics.called(channel, self.clock.now().saturating_duration_since(began));
        match called {
            Ok(Ok(Ok(receipts))) => {
                let duplicates = receipts.iter().filter(|receipt| **receipt == Receipt::Duplicate).count();
                self.metrics.published(channel, "sent", messages.len().saturating_sub(duplicates));
                self.metrics.published(channel, "duplicate", duplicates);
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Internal, PANICKED, "the sink panicked")),
            Err(_) => {
                let text = format!("the sink took longer than {:?}", self.config.timeout);
                Err(Error::new(ErrorKind::Timeout, "outbox.timeout", text))
            }
        }
    }
}

/// Whether an error speaks of the message, not of the sink.
fn is_its_own(error: &Error) -> bool {
    let kinds = [
        ErrorKind::Invalid,
        ErrorKind::TooLarge,
        ErrorKind::Unsupported,
        ErrorKind::Conflict,
        ErrorKind::PreconditionFailed,
    ];
    kinds.contains(&error.kind()) || error.code() == PANICKED
}
