//! An event on its way: its topic, the event and the work it came from.

use runtime_kernel::{Carried, Clock, Context, TenantContext};

use crate::cloudevent::CloudEvent;
use crate::error::EventsError;

/// The longest name of a topic or subscription.
pub const MAX_TOPIC: usize = 128;

/// An event on its way into a topic.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// What happened.
    pub event: CloudEvent,
    /// The work it came from.
    pub context: Carried,
}

impl Message {
    /// An event of a piece of work. The event gets the work's trace as extensions, unless it names one.
    ///
    /// # Errors
    /// [`EventsError::Config`] for a topic that is not 1 to 128 letters, digits, `_`, `-` or `.`, with a letter or digit
    /// on both sides of each dot.
    pub fn new(
        clock: &dyn Clock,
        context: &Context,
        topic: impl Into<String>,
        event: CloudEvent,
    ) -> Result<Self, EventsError> {
        Self::carried(context.carry(clock), topic.into(), event)
    }

    pub(crate) fn carried(context: Carried, topic: String, event: CloudEvent) -> Result<Self, EventsError> {
        check_name("topic", &topic)?;
        let event = event.with_trace(&context);
        Ok(Self { topic, event, context })
    }

    /// The namespace of its tenant; empty without one. Keys and duplicates are those of one tenant.
    pub fn tenant(&self) -> String {
        namespace(&self.context)
    }

    /// What it is kept in order with: tenant and key; `None` without a key.
    pub(crate) fn lane(&self) -> Option<String> {
        // A namespace has no line break, so no two pairs share a lane.
        self.event.key().map(|key| format!("{}\n{key}", self.tenant()))
    }

    /// What no two events of a topic share.
    pub(crate) fn identity(&self) -> String {
        // Neither part has a line break: the envelope forbids control characters.
        format!("{}\n{}\n{}", self.tenant(), self.event.source(), self.event.id())
    }
}

/// The namespace of a context's tenant; empty without one.
pub(crate) fn namespace(context: &Carried) -> String {
    context.tenant.as_ref().map(TenantContext::namespace).unwrap_or_default()
}

/// A topic's or subscription's name: safe in logs, keys and the subjects of brokers.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), EventsError> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let word = |word: &str| !word.is_empty() && word.bytes().all(alphabet);
    if name.len() <= MAX_TOPIC && name.split('.').all(word) {
        return Ok(());
    }
    let problem = format!("must be words of letters, digits, `_` and `-` joined by dots, {MAX_TOPIC} in all");
    Err(EventsError::config(what, problem))
}

/// How many slots keys are spread over; partitions are made of them.
pub(crate) const SLOTS: u64 = 1024;

/// The slot of a message: the same for all of a lane, in every process (FNV-1a).
pub(crate) fn slot(message: &Message) -> u64 {
    let text = message.lane().unwrap_or_else(|| message.identity());
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV are its weakest.
    (hash ^ (hash >> 32)) % SLOTS
}
