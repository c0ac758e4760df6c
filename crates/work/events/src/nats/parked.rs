//! Events a group has given up on, in a stream of their own.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Message as Delivered;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt;

use super::{NatsEvents, broker, wire};
use crate::cloudevent::{percent_decode, percent_encode};
use crate::error::EventsError;
use crate::log::Failure;
use crate::message::Message;

const FAILURE: &str = "Runtime-Failure";

/// An event a group has given up on.
#[derive(Debug)]
pub struct ParkedMessage {
    /// Its place in the stream of parked events.
    pub sequence: u64,
    /// The event, unless it was no CloudEvent; that is then the failure.
    pub message: Option<Message>,
    /// Why it was given up on.
    pub failure: Option<Failure>,
}

impl NatsEvents {
    /// Keeps a delivered event as it came, with the reason.
    pub(super) async fn park(
        &self,
        group: &str,
        topic: &str,
        delivered: &Delivered,
        failure: &Failure,
    ) -> Result<(), EventsError> {
        let mut headers = delivered.headers.clone().unwrap_or_default();
        let failure = serde_json::to_string(failure).map_err(broker)?;
        headers.insert(FAILURE, percent_encode(&failure).as_str());
        // Parking is repeated when its acknowledgement is lost; the same event is kept once.
        let sequence = delivered.info().map(|info| info.stream_sequence).unwrap_or_default();
        headers.insert(NATS_MESSAGE_ID, format!("{group}/{topic}/{sequence}").as_str());
        let subject = self.parked_subject(group, topic);
        let sent = self.context.publish_with_headers(subject, headers, delivered.payload.clone()).await;
        sent.map_err(broker)?.await.map_err(broker)?;
        Ok(())
    }

    /// What a group has given up on of a topic, oldest first.
    ///
    /// # Errors
    /// [`EventsError::Broker`].
    pub async fn parked(
        &self,
        group: &str,
        topic: &str,
        max: usize,
    ) -> Result<Vec<ParkedMessage>, EventsError> {
        let stream = self.context.get_stream_no_info(self.parked_stream()).await.map_err(broker)?;
        let config = pull::Config {
            filter_subject: self.parked_subject(group, topic),
            ack_policy: AckPolicy::None,
            inactive_threshold: std::time::Duration::from_secs(5),
            ..pull::Config::default()
        };
        let reader = stream.create_consumer(config).await.map_err(broker)?;
        let mut found = reader.fetch().max_messages(max).messages().await.map_err(broker)?;
        let mut parked = Vec::new();
        while let Some(delivered) = found.next().await {
            let delivered = delivered.map_err(broker)?;
            let sequence = delivered.info().map_err(broker)?.stream_sequence;
            let failure = delivered.headers.as_ref().and_then(|headers| headers.get(FAILURE));
            let failure = failure.and_then(|text| percent_decode(FAILURE, text.as_str().as_bytes()).ok());
            parked.push(ParkedMessage {
                sequence,
                message: wire::read(topic, delivered.headers.as_ref(), delivered.payload.clone()).ok(),
                failure: failure.and_then(|text| serde_json::from_str(&text).ok()),
            });
        }
        Ok(parked)
    }
}
