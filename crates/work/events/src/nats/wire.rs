//! Messages as NATS carries them: attributes and context as headers, data as the payload.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use runtime_kernel::{Carried, Context, Source, SystemClock};

use crate::cloudevent::{CloudEvent, percent_decode, percent_encode, read_attributes, write_attributes};
use crate::error::EventsError;
use crate::message::Message;

const PREFIX: &str = "ce-";
const CONTENT_TYPE: &str = "ce-datacontenttype";
const CONTEXT: &str = "Runtime-Context";

pub(super) fn write(message: &Message) -> Result<(HeaderMap, Bytes), EventsError> {
    let mut headers = HeaderMap::new();
    for (name, value) in write_attributes(&message.event) {
        headers.insert(name.as_str(), value.as_str());
    }
    if let Some(media_type) = message.event.media_type() {
        headers.insert(CONTENT_TYPE, percent_encode(&media_type).as_str());
    }
    let context =
        serde_json::to_string(&message.context).map_err(|error| EventsError::Malformed(error.to_string()))?;
    headers.insert(CONTEXT, percent_encode(&context).as_str());
    // One stream has many topics, and what is a duplicate in one is none in another.
    let identity = format!("{}\n{}", message.topic, message.identity());
    headers.insert(NATS_MESSAGE_ID, percent_encode(&identity).as_str());
    Ok((headers, message.event.bytes()?.unwrap_or_default()))
}

pub(super) fn read(topic: &str, headers: Option<&HeaderMap>, payload: Bytes) -> Result<Message, EventsError> {
    let none = HeaderMap::new();
    let headers = headers.unwrap_or(&none);
    let text = |name: &str| {
        headers.get(name).map(|value| percent_decode(name, value.as_str().as_bytes())).transpose()
    };
    let event =
        if headers.get("Content-Type").is_some_and(|it| it.as_str().starts_with("application/cloudevents")) {
            CloudEvent::from_json(&payload)?
        } else {
            let attributes = headers.iter().flat_map(|(name, values)| {
                let name: &str = name.as_ref();
                let name = name
                    .get(..PREFIX.len())
                    .filter(|it| it.eq_ignore_ascii_case(PREFIX))
                    .and(name.get(PREFIX.len()..));
                values.iter().filter_map(move |value| Some((name?, value.as_str().as_bytes())))
            });
            let attributes = attributes.filter(|(name, _)| !name.eq_ignore_ascii_case("datacontenttype"));
            read_attributes(attributes, text(CONTENT_TYPE)?, payload)?
        };
    let context = match text(CONTEXT)?.map(|context| serde_json::from_str::<Carried>(&context)) {
        Some(Ok(context)) => context,
        Some(Err(error)) => return Err(EventsError::Malformed(format!("{CONTEXT}: {error}"))),
        // Published by somebody else: its trace is all that is known of it.
        None => {
            let mut context = Context::new(Source::Event, &SystemClock);
            context.trace = event.trace().unwrap_or(context.trace);
            context.carry(&SystemClock)
        }
    };
    Message::carried(context, topic.to_owned(), event)
}
