//! The port of the outbox: messages that wait, relays that claim them, operators who look after the parked.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::Message;
use runtime_kernel::{Error, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::config::OnParked;
use crate::error::OutboxError;
use crate::row::{BEHIND, READY, RETRYING};

/// The parts of a channel that are leased by themselves. All messages of a key are in one, so that one relay at a time has
/// them; as many relays as this can work on one channel.
pub const SHARDS: u32 = 16;

/// The most shards of one claim, so that relays share a channel.
pub(crate) const CLAIM_SHARDS: usize = 8;

/// Where messages go: the name of a queue in the outbox that relays empty into one sink.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channel(String);

impl Channel {
    /// A channel's name.
    ///
    /// # Errors
    /// [`OutboxError::Invalid`] unless it is 1 to 64 letters, digits, `_`, `-` or `.`.
    pub fn new(name: impl Into<String>) -> Result<Self, OutboxError> {
        let name = name.into();
        check_name("channel", &name)?;
        Ok(Self(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn check_name(what: &str, name: &str) -> Result<(), OutboxError> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(alphabet) {
        return Ok(());
    }
    Err(OutboxError::invalid(what, "must be 1 to 64 letters, digits, `_`, `-` or `.`"))
}

/// What a relay asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The channel.
    pub channel: Channel,
    /// At most so many messages.
    pub max: u32,
    /// How long the claim holds without being renewed.
    pub lease: Duration,
    /// After how many lost relays a message is parked.
    pub max_attempts: u32,
    /// What its key does then.
    pub on_parked: OnParked,
}

/// Proof of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The channel.
    pub channel: Channel,
    /// The parts of it that are held.
    pub shards: Vec<u32>,
    /// Grows with every claim; what is said under an older one is refused.
    pub fence: u64,
}

/// A message of a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Its number in the outbox.
    pub seq: u64,
    /// When it was added.
    pub created_at: Timestamp,
    /// How many attempts counted against it so far.
    pub attempts: u32,
    /// It has failed before.
    pub again: bool,
    /// What is to be published.
    pub message: Message,
}

/// Messages held by one relay.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The proof.
    pub lease: Lease,
    /// The messages; those of one key in the order in which they were added.
    pub messages: Vec<Claimed>,
}

/// Why a message was not taken, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's kind.
    pub kind: String,
    /// Its stable code.
    pub code: String,
    /// Its message, without sources; at most a thousand characters.
    pub message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            code: error.code().to_owned(),
            message: error.message().chars().take(1000).collect(),
        }
    }
}

impl Failure {
    /// What is kept of a message whose relay was lost.
    pub(crate) fn lost() -> Self {
        let message = "the relay was not heard from before its lease ran out";
        Self {
            kind: "timeout".to_owned(),
            code: "outbox.lease_expired".to_owned(),
            message: message.to_owned(),
        }
    }

    /// What is kept of a row that is no message.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn corrupt(problem: &OutboxError) -> Self {
        Self {
            kind: "internal".to_owned(),
            code: "outbox.corrupt".to_owned(),
            message: problem.to_string().chars().take(1000).collect(),
        }
    }
}

/// What became of a claimed message. One without a verdict was not tried, and comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sink has it.
    Sent,
    /// It comes again after the delay; its key waits for it.
    Retry {
        /// How long it waits.
        delay: Duration,
        /// How many attempts count against it now.
        attempts: u32,
        /// Why.
        failure: Failure,
    },
    /// It is set aside.
    Park {
        /// How many attempts counted against it.
        attempts: u32,
        /// What its key does.
        on_parked: OnParked,
        /// Why.
        failure: Failure,
    },
}

/// The verdict on one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub seq: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// A message set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// Its number in the outbox.
    pub seq: u64,
    /// When it was added.
    pub created_at: Timestamp,
    /// The namespace of its tenant; empty without one.
    pub tenant: String,
    /// Where it was to go.
    pub topic: String,
    /// How many attempts counted against it.
    pub attempts: u32,
    /// Whether its key waits for it.
    pub holding: bool,
    /// Why.
    pub failure: Option<Failure>,
    /// The message, unless it does not read back.
    pub message: Option<Message>,
}

/// How a channel stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStats {
    /// Its name.
    pub channel: String,
    /// Messages that can be sent now.
    pub ready: u64,
    /// Messages that wait for another attempt.
    pub retrying: u64,
    /// Messages that wait behind one of their key.
    pub behind: u64,
    /// Messages set aside.
    pub parked: u64,
    /// The age of the oldest message that is neither sent nor parked.
    pub oldest_unsent: Option<Duration>,
}

/// The outbox, as relays and operators see it. Laws every store keeps are in `laws` (feature `testkit`).
#[async_trait]
pub trait OutboxStore: fmt::Debug + Send + Sync + 'static {
    /// Adds messages, all or none, in an own transaction.
    async fn add(&self, channel: &Channel, messages: &[Message]) -> Result<(), OutboxError>;
    /// Claims what can be sent; `None` when nothing can. No key is ever in two claims that hold.
    ///
    /// A claim that ran out points at what was being published: the messages of a lost claim are handed out one by one
    /// until the one is found that loses relays; that counts against it.
    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Claim>, OutboxError>;
    /// Extends a claim; `false` when any of it is another's.
    async fn renew(&self, lease: &Lease, until: Duration) -> Result<bool, OutboxError>;
    /// Ends a claim with what became of its messages. `false` when any of it was another's: what is said about that part
    /// is not taken.
    async fn settle(&self, lease: &Lease, settled: &[Settled]) -> Result<bool, OutboxError>;
    /// Messages set aside, of one tenant's namespace or all, oldest first, after a number.
    async fn parked(
        &self,
        channel: &Channel,
        tenant: Option<&str>,
        after: u64,
        max: u32,
    ) -> Result<Vec<Parked>, OutboxError>;
    /// Sends parked messages after all, with fresh attempts: one, or all of a tenant's namespace or channel. Says how many.
    async fn redrive(
        &self,
        channel: &Channel,
        tenant: Option<&str>,
        seq: Option<u64>,
    ) -> Result<u64, OutboxError>;
    /// Deletes a parked message and lets its key go on; says whether it was there.
    async fn discard(&self, channel: &Channel, tenant: Option<&str>, seq: u64) -> Result<bool, OutboxError>;
    /// How every channel that has unsent messages stands.
    async fn stats(&self) -> Result<Vec<ChannelStats>, OutboxError>;
    /// Forgets messages sent longer ago than this; at most so many in one call. Says how many.
    async fn prune(&self, keep: Duration, max: u32) -> Result<u64, OutboxError>;
    /// Rung when this process has added something.
    fn rung(&self) -> &Notify;
    /// Ready when another process may have added something; for ever pending where nobody tells.
    async fn announced(&self) {
        std::future::pending::<()>().await;
    }
}

impl ChannelStats {
    /// Counts messages of one state, the oldest of which has this age in microseconds.
    pub(crate) fn count(&mut self, state: i64, many: u64, age: i64) {
        let slot = match state {
            READY => &mut self.ready,
            RETRYING => &mut self.retrying,
            BEHIND => &mut self.behind,
            _ => &mut self.parked,
        };
        *slot += many;
        if matches!(state, READY | RETRYING | BEHIND) && many > 0 {
            let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
            self.oldest_unsent = Some(self.oldest_unsent.map_or(age, |oldest| oldest.max(age)));
        }
    }

    /// Messages neither sent nor parked.
    pub fn unsent(&self) -> u64 {
        self.ready + self.retrying + self.behind
    }
}
