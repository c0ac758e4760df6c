//! What a row of the outbox is made of.

use runtime_events::Message;
use runtime_kernel::Carried;

use crate::error::OutboxError;
use crate::store::SHARDS;

/// It can be sent.
pub(crate) const READY: i64 = 0;
/// It waits for another attempt, and its lane for it.
pub(crate) const RETRYING: i64 = 1;
/// It is set aside.
pub(crate) const PARKED: i64 = 2;
/// It waits for the one of its lane that is retried or holds.
pub(crate) const BEHIND: i64 = 3;
/// It is set aside, and its lane waits.
pub(crate) const HOLDING: i64 = 4;
/// It has been sent.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) const SENT: i64 = 5;

/// What a message is kept in order with: its tenant and key; `None` without a key.
pub(crate) fn lane(message: &Message) -> Option<String> {
    // A namespace has no line break, so no two pairs share a lane.
    message.event.key().map(|key| format!("{}\n{key}", message.tenant()))
}

/// The shard of a message: the same for all of a lane, in every process (FNV-1a).
pub(crate) fn shard(message: &Message) -> u32 {
    let text = lane(message).unwrap_or_else(|| message.event.id().to_owned());
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV are its weakest.
    u32::try_from((hash ^ (hash >> 32)) % u64::from(SHARDS)).unwrap_or_default()
}

/// The message a row holds.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn message(topic: String, event: &str, context: &str) -> Result<Message, OutboxError> {
    use runtime_events::CloudEvent;
    use runtime_kernel::{Context, Source, SystemClock};

    let corrupt = |problem: String| OutboxError::Corrupt(problem);
    let event = CloudEvent::from_json(event.as_bytes()).map_err(|error| corrupt(error.to_string()))?;
    let carried: Carried = serde_json::from_str(context).map_err(|error| corrupt(error.to_string()))?;
    let anyone = Context::new(Source::Internal, &SystemClock);
    let mut message =
        Message::new(&SystemClock, &anyone, topic, event).map_err(|error| corrupt(error.to_string()))?;
    message.context = carried;
    Ok(message)
}

/// The event and the context of a message, as they are stored.
pub(crate) fn texts(message: &Message, limit: usize) -> Result<(String, String), OutboxError> {
    let event = message.event.to_json()?;
    if event.len() > limit {
        let id = message.event.id().to_owned();
        return Err(OutboxError::TooLarge { id, size: event.len(), limit });
    }
    // A message outlives the request that adds it, and so that request's deadline.
    let carried = Carried { deadline: None, ..message.context.clone() };
    let context = serde_json::to_string(&carried)
        .map_err(|error| OutboxError::invalid("context", error.to_string()))?;
    Ok((event, context))
}
