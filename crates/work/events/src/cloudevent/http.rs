//! The HTTP protocol binding: binary, structured and batched messages as headers and a body.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::event::CloudEvent;
use super::format;
use super::headers::{read_attributes, write_attributes};
use crate::error::EventsError;

const PREFIX: &str = "ce-";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json";

/// How one event is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Attributes as headers, data as the body.
    #[default]
    Binary,
    /// All of it as JSON in the body.
    Structured,
}

/// What a receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest body, in bytes: 1 MiB unless told. Every intermediary forwards 64 KiB at least.
    pub body: usize,
    /// The most events of a batch: 1000 unless told.
    pub batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 1024 * 1024, batch: 1000 }
    }
}

/// What a message held.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// One event.
    One(Box<CloudEvent>),
    /// A batch, perhaps an empty one.
    Batch(Vec<CloudEvent>),
}

impl Received {
    /// The events, however they came.
    pub fn into_events(self) -> Vec<CloudEvent> {
        match self {
            Self::One(event) => vec![*event],
            Self::Batch(events) => events,
        }
    }
}

/// An event as headers and body.
///
/// # Errors
/// [`EventsError::Malformed`] for JSON data with keys that are no text.
pub fn write(event: &CloudEvent, mode: Mode) -> Result<(HeaderMap, Bytes), EventsError> {
    let mut headers = HeaderMap::new();
    if mode == Mode::Structured {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
        return Ok((headers, event.to_json()?.into()));
    }
    for (name, value) in write_attributes(event) {
        headers.insert(header_name(&name)?, header_value(&name, &value)?);
    }
    if let Some(media_type) = event.media_type() {
        headers.insert(CONTENT_TYPE, header_value("datacontenttype", &media_type)?);
    }
    Ok((headers, event.bytes()?.unwrap_or_default()))
}

/// A batch as headers and body. Send one only to a receiver that asked for batches (§3 of the binding).
///
/// # Errors
/// As [`write()`].
pub fn write_batch(events: &[CloudEvent]) -> Result<(HeaderMap, Bytes), EventsError> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(BATCHED))]);
    Ok((headers, format::batch_to_json(events)?.into()))
}

/// Whether a message claims to hold CloudEvents.
pub fn is_event(headers: &HeaderMap) -> bool {
    let media_type = content_type(headers).ok().flatten().unwrap_or_default().to_ascii_lowercase();
    media_type.starts_with("application/cloudevents") || headers.contains_key("ce-specversion")
}

/// Reads what a request or response holds, in whichever mode it came.
///
/// # Errors
/// [`EventsError::Unsupported`] for another version, event format or charset (415), [`EventsError::TooLarge`] (413),
/// and what breaks a rule (400).
pub fn read(headers: &HeaderMap, body: &Bytes, limits: &Limits) -> Result<Received, EventsError> {
    if body.len() > limits.body {
        return Err(EventsError::TooLarge { what: "a body", size: body.len(), limit: limits.body });
    }
    let declared = content_type(headers)?;
    let media_type = declared.clone().unwrap_or_default().to_ascii_lowercase();
    if !media_type.starts_with("application/cloudevents") {
        return read_binary(headers, declared, body.clone());
    }
    let (essence, parameters) = media_type.split_once(';').unwrap_or((&media_type, ""));
    utf8(parameters)?;
    match essence.trim() {
        STRUCTURED => Ok(Received::One(Box::new(CloudEvent::from_json(body)?))),
        BATCHED => {
            let events = CloudEvent::batch_from_json(body)?;
            if events.len() > limits.batch {
                let (size, limit) = (events.len(), limits.batch);
                return Err(EventsError::TooLarge { what: "a batch", size, limit });
            }
            Ok(Received::Batch(events))
        }
        _ => Err(EventsError::Unsupported("only the JSON event format is spoken".to_owned())),
    }
}

fn read_binary(
    headers: &HeaderMap,
    media_type: Option<String>,
    body: Bytes,
) -> Result<Received, EventsError> {
    let attributes = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(PREFIX)?, value.as_bytes())));
    read_attributes(attributes, media_type, body).map(|event| Received::One(Box::new(event)))
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, EventsError> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let wrong = |problem| Err(EventsError::attribute("datacontenttype", problem));
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => wrong("appears twice"),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => wrong("is not printable ASCII"),
        },
    }
}

/// JSON events are UTF-8; another declared charset is not spoken.
fn utf8(parameters: &str) -> Result<(), EventsError> {
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    match charset.map(|charset| charset.trim_matches('"')) {
        None | Some("utf-8" | "utf8" | "us-ascii") => Ok(()),
        Some(_) => Err(EventsError::Unsupported("only UTF-8 is spoken".to_owned())),
    }
}

fn header_name(name: &str) -> Result<HeaderName, EventsError> {
    name.parse().map_err(|_| EventsError::attribute(name, "cannot be a header"))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, EventsError> {
    HeaderValue::from_str(value).map_err(|_| EventsError::attribute(name, "cannot be a header"))
}
