//! The JSON event format and its batches.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::check;
use super::event::{CloudEvent, Data};
use super::value::AttributeValue;
use crate::error::EventsError;

/// The version spoken.
pub(super) const VERSION: &str = "1.0";

impl CloudEvent {
    /// The event in the JSON format (`application/cloudevents+json`).
    ///
    /// # Errors
    /// Never for an event that was read; JSON with keys that are no text cannot be made.
    pub fn to_json(&self) -> Result<String, EventsError> {
        serde_json::to_string(self).map_err(|error| EventsError::Malformed(error.to_string()))
    }

    /// Reads an event in the JSON format, strictly: a member that appears twice is refused too.
    ///
    /// # Errors
    /// [`EventsError::Malformed`] for what is no JSON object, [`EventsError::Attribute`] for what breaks a rule,
    /// [`EventsError::Unsupported`] for another version.
    pub fn from_json(text: &[u8]) -> Result<Self, EventsError> {
        let members: Members =
            serde_json::from_slice(text).map_err(|error| EventsError::Malformed(error.to_string()))?;
        Self::of_members(members)
    }

    /// Reads a batch in the JSON batch format (`application/cloudevents-batch+json`); it may be empty.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json), for the first event that is wrong: a batch is read whole or not at all.
    pub fn batch_from_json(text: &[u8]) -> Result<Vec<Self>, EventsError> {
        let batch: Vec<Members> =
            serde_json::from_slice(text).map_err(|error| EventsError::Malformed(error.to_string()))?;
        batch.into_iter().map(Self::of_members).collect()
    }

    fn of_members(Members(mut members): Members) -> Result<Self, EventsError> {
        match take_text(&mut members, "specversion")?.as_deref() {
            Some(VERSION) => {}
            Some(_) => return Err(EventsError::Unsupported("only CloudEvents 1.0 is spoken".to_owned())),
            None => return Err(missing("specversion")),
        }
        let mut required = |name: &str| take_text(&mut members, name)?.ok_or_else(|| missing(name));
        let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
        let subject = take_text(&mut members, "subject")?;
        let time = take_text(&mut members, "time")?;
        let time = time.map(|time| check::timestamp("time", &time)).transpose()?;
        let data_content_type = take_text(&mut members, "datacontenttype")?;
        let data_schema = take_text(&mut members, "dataschema")?;
        let base64 = take_text(&mut members, "data_base64")?;
        let declares_json = data_content_type.as_deref().is_none_or(check::declares_json);
        let data = match (members.remove("data"), base64) {
            (Some(_), Some(_)) => {
                return Err(EventsError::Malformed("`data` and `data_base64` exclude each other".to_owned()));
            }
            (None, None) => None,
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text);
                let bytes =
                    bytes.map_err(|_| EventsError::Malformed("`data_base64` is not base64".to_owned()))?;
                Some(Data::Binary(Bytes::from(bytes)))
            }
            (Some(value), None) if declares_json => Some(Data::Json(value)),
            (Some(Value::String(text)), None) => Some(Data::Text(text)),
            (Some(_), None) => {
                let problem = "`data` must be a string, because `datacontenttype` does not declare JSON";
                return Err(EventsError::Malformed(problem.to_owned()));
            }
        };
        let mut extensions = BTreeMap::new();
        for (name, value) in members {
            check::extension_name(&name)?;
            if value.is_null() {
                continue;
            }
            let value = AttributeValue::from_json(&name, value)?;
            extensions.insert(name, value);
        }
        let event =
            Self { id, source, kind, subject, time, data_content_type, data_schema, extensions, data };
        event.check()?;
        Ok(event)
    }
}

/// A batch in the JSON batch format.
///
/// # Errors
/// As [`CloudEvent::to_json`].
#[cfg(feature = "http")]
pub(super) fn batch_to_json(events: &[CloudEvent]) -> Result<Vec<u8>, EventsError> {
    serde_json::to_vec(events).map_err(|error| EventsError::Malformed(error.to_string()))
}

impl Serialize for CloudEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", VERSION)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("type", &self.kind)?;
        let optional = [
            ("subject", &self.subject),
            ("datacontenttype", &self.data_content_type),
            ("dataschema", &self.data_schema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        if let Some(time) = &self.time {
            map.serialize_entry("time", &time.to_string())?;
        }
        for (name, value) in &self.extensions {
            map.serialize_entry(name, &value.to_json())?;
        }
        match &self.data {
            None => {}
            Some(Data::Json(value)) => map.serialize_entry("data", value)?,
            Some(Data::Text(text)) => map.serialize_entry("data", text)?,
            Some(Data::Binary(bytes)) => {
                // Bytes of a binary message that are the JSON they claim to be need no base64.
                let json = self.holds_json().then(|| serde_json::from_slice::<Value>(bytes).ok()).flatten();
                match json {
                    Some(value) => map.serialize_entry("data", &value)?,
                    None => map.serialize_entry("data_base64", &STANDARD.encode(bytes))?,
                }
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for CloudEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_members(Members::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The members of a JSON object, each there once.
struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Unique)
    }
}

struct Unique;

impl<'de> Visitor<'de> for Unique {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member appears twice"));
            }
        }
        Ok(Members(members))
    }
}

/// A member that has to be text; `null` means that it is not set.
fn take_text(members: &mut BTreeMap<String, Value>, name: &str) -> Result<Option<String>, EventsError> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(EventsError::attribute(name, "is not a string")),
    }
}

pub(super) fn missing(name: &str) -> EventsError {
    EventsError::attribute(name, "is missing")
}
