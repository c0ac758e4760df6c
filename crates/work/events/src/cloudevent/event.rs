//! One event and how it is made.

#[cfg(any(feature = "http", feature = "nats"))]
use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use runtime_kernel::{Clock, Timestamp, uuid_v7};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::check;
use super::value::AttributeValue;
use crate::error::EventsError;

/// The most extensions one event may have.
pub const MAX_EXTENSIONS: usize = 64;

/// The extension whose value orders events among each other (`partitioning.md` of the specification).
const PARTITION_KEY: &str = "partitionkey";

/// What an event carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// A JSON value; the content type declares JSON, or there is none.
    Json(Value),
    /// Text of another content type.
    Text(String),
    /// Bytes, read by nobody on the way.
    Binary(Bytes),
}

/// An event as CloudEvents 1.0 defines it. Every value of this type keeps the specification's rules.
///
/// ```
/// use runtime_events::CloudEvent;
///
/// let event = CloudEvent::builder("A-1", "/shop/7", "com.example.order.placed")
///     .subject("order/4711")
///     .json(&serde_json::json!({ "total": 12 }))
///     .key("order/4711")
///     .build()?;
/// assert_eq!(event.key(), Some("order/4711"));
/// assert!(CloudEvent::builder("A-1", "not a uri", "x").build().is_err());
/// # Ok::<(), runtime_events::EventsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) kind: String,
    pub(super) subject: Option<String>,
    pub(super) time: Option<Timestamp>,
    pub(super) data_content_type: Option<String>,
    pub(super) data_schema: Option<String>,
    pub(super) extensions: BTreeMap<String, AttributeValue>,
    pub(super) data: Option<Data>,
}

impl CloudEvent {
    /// An event with an id of the producer's, a source and a type.
    pub fn builder(
        id: impl Into<String>,
        source: impl Into<String>,
        kind: impl Into<String>,
    ) -> CloudEventBuilder {
        CloudEventBuilder {
            event: Self {
                id: id.into(),
                source: source.into(),
                kind: kind.into(),
                subject: None,
                time: None,
                data_content_type: None,
                data_schema: None,
                extensions: BTreeMap::new(),
                data: None,
            },
            failed: None,
        }
    }

    /// An event that happens now, with a new id.
    pub fn now(clock: &dyn Clock, source: impl Into<String>, kind: impl Into<String>) -> CloudEventBuilder {
        Self::builder(uuid_v7(clock).to_string(), source, kind).time(clock.utc())
    }

    /// Names it among the events of its source.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it happened: a URI-reference. Together with the id it is unique.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its type: `com.example.order.placed`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What it is about, within the source.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When it happened.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// The media type of its data. JSON data without one is `application/json`.
    pub fn data_content_type(&self) -> Option<&str> {
        self.data_content_type.as_deref()
    }

    /// The schema of its data: a URI.
    pub fn data_schema(&self) -> Option<&str> {
        self.data_schema.as_deref()
    }

    /// One extension.
    pub fn extension(&self, name: &str) -> Option<&AttributeValue> {
        self.extensions.get(name)
    }

    /// All extensions, by name.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.extensions.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// What it carries.
    pub fn data(&self) -> Option<&Data> {
        self.data.as_ref()
    }

    /// Its extension `partitionkey`: events of one key are delivered in order.
    pub fn key(&self) -> Option<&str> {
        self.extension(PARTITION_KEY).and_then(AttributeValue::as_str)
    }

    /// Its data as a typed value, parsed from JSON.
    ///
    /// # Errors
    /// There is no data, its content type is another, or it does not fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, EventsError> {
        let wrong = |error: serde_json::Error| EventsError::Malformed(format!("data: {error}"));
        match &self.data {
            Some(Data::Json(value)) => T::deserialize(value).map_err(wrong),
            Some(Data::Binary(bytes)) if self.holds_json() => serde_json::from_slice(bytes).map_err(wrong),
            Some(_) => Err(EventsError::Malformed("data is not JSON".to_owned())),
            None => Err(EventsError::Malformed("there is no data".to_owned())),
        }
    }

    /// Its data as the bytes of its content type.
    ///
    /// # Errors
    /// Never for an event that was read; JSON with keys that are no text cannot be made.
    pub fn bytes(&self) -> Result<Option<Bytes>, EventsError> {
        Ok(match &self.data {
            None => None,
            Some(Data::Binary(bytes)) => Some(bytes.clone()),
            Some(Data::Text(text)) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Some(Data::Json(value)) => {
                let bytes = serde_json::to_vec(value);
                Some(bytes.map_err(|error| EventsError::Malformed(error.to_string()))?.into())
            }
        })
    }

    /// Whether its content type declares JSON.
    pub(super) fn holds_json(&self) -> bool {
        self.data_content_type.as_deref().is_some_and(check::declares_json)
    }

    /// The content type a binary message has to name: the declared one, or JSON's for JSON without one.
    #[cfg(any(feature = "http", feature = "nats"))]
    pub(crate) fn media_type(&self) -> Option<Cow<'_, str>> {
        let implied = matches!(self.data, Some(Data::Json(_))).then_some(Cow::Borrowed("application/json"));
        self.data_content_type.as_deref().map(Cow::Borrowed).or(implied)
    }

    pub(super) fn check(&self) -> Result<(), EventsError> {
        check::text("id", &self.id)?;
        check::uri_reference("source", &self.source)?;
        check::text("type", &self.kind)?;
        self.subject.as_deref().map_or(Ok(()), |subject| check::text("subject", subject))?;
        self.data_schema.as_deref().map_or(Ok(()), |schema| check::uri("dataschema", schema))?;
        self.data_content_type
            .as_deref()
            .map_or(Ok(()), |kind| check::media_type("datacontenttype", kind))?;
        if self.extensions.len() > MAX_EXTENSIONS {
            let size = self.extensions.len();
            return Err(EventsError::TooLarge {
                what: "a number of extensions",
                size,
                limit: MAX_EXTENSIONS,
            });
        }
        for (name, value) in &self.extensions {
            check::extension_name(name)?;
            value.check(name)?;
        }
        match &self.data {
            Some(Data::Json(_)) if self.data_content_type.is_some() && !self.holds_json() => {
                Err(EventsError::attribute("datacontenttype", "does not declare JSON, which the data is"))
            }
            Some(Data::Text(_)) if self.holds_json() || self.data_content_type.is_none() => {
                Err(EventsError::attribute("datacontenttype", "must name the text's media type, not JSON"))
            }
            _ => Ok(()),
        }
    }
}

/// An event in the making; [`build`](Self::build) checks it.
#[derive(Clone, Debug)]
#[must_use]
pub struct CloudEventBuilder {
    event: CloudEvent,
    failed: Option<String>,
}

impl CloudEventBuilder {
    /// What it is about, within the source.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.event.subject = Some(subject.into());
        self
    }

    /// When it happened.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.event.time = Some(time);
        self
    }

    /// The schema of its data.
    pub fn data_schema(mut self, schema: impl Into<String>) -> Self {
        self.event.data_schema = Some(schema.into());
        self
    }

    /// JSON data, of type `application/json`.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.json_as("application/json", value)
    }

    /// JSON data of a media type of its own: `application/vnd.example+json`.
    pub fn json_as<T: Serialize + ?Sized>(mut self, media_type: impl Into<String>, value: &T) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => self.event.data = Some(Data::Json(value)),
            Err(error) => self.failed = Some(error.to_string()),
        }
        self.event.data_content_type = Some(media_type.into());
        self
    }

    /// Text of a media type other than JSON.
    pub fn text(mut self, media_type: impl Into<String>, text: impl Into<String>) -> Self {
        self.event.data_content_type = Some(media_type.into());
        self.event.data = Some(Data::Text(text.into()));
        self
    }

    /// Bytes of a media type.
    pub fn binary(mut self, media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        self.event.data_content_type = Some(media_type.into());
        self.event.data = Some(Data::Binary(bytes.into()));
        self
    }

    /// Sets an extension.
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.event.extensions.insert(name.into(), value.into());
        self
    }

    /// Orders it among the events of one key: the extension `partitionkey`.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.extension(PARTITION_KEY, key.into())
    }

    /// The event.
    ///
    /// # Errors
    /// [`EventsError::Attribute`] names what breaks a rule.
    pub fn build(self) -> Result<CloudEvent, EventsError> {
        if let Some(problem) = self.failed {
            return Err(EventsError::Malformed(format!("data: {problem}")));
        }
        self.event.check()?;
        Ok(self.event)
    }
}
