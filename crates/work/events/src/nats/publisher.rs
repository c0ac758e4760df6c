//! Publishing into the stream.

use std::collections::HashSet;

use async_trait::async_trait;

use super::{NatsEvents, broker, wire};
use crate::error::EventsError;
use crate::message::Message;
use crate::publisher::{Publisher, Receipt};

/// The most messages on their way at once.
const INFLIGHT: usize = 256;

#[async_trait]
impl Publisher for NatsEvents {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let mut receipts = Vec::with_capacity(messages.len());
        let (mut acks, mut lanes) = (Vec::new(), HashSet::new());
        for message in messages {
            let lane = message.lane();
            // The next of a key is sent once the one before is safe: repeating the batch cannot turn them round then.
            if acks.len() >= INFLIGHT || lane.as_ref().is_some_and(|lane| lanes.contains(lane)) {
                settle(&mut acks, &mut receipts).await?;
                lanes.clear();
            }
            lanes.extend(lane);
            let (headers, payload) = wire::write(message)?;
            let sent =
                self.context.publish_with_headers(self.subject(&message.topic), headers, payload).await;
            acks.push(sent.map_err(broker)?);
        }
        settle(&mut acks, &mut receipts).await?;
        Ok(receipts)
    }
}

async fn settle(
    acks: &mut Vec<async_nats::jetstream::context::PublishAckFuture>,
    receipts: &mut Vec<Receipt>,
) -> Result<(), EventsError> {
    for ack in acks.drain(..) {
        let ack = ack.await.map_err(broker)?;
        receipts.push(if ack.duplicate { Receipt::Duplicate } else { Receipt::New });
    }
    Ok(())
}
