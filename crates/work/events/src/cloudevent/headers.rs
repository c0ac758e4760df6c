//! Attributes as headers `ce-…`, the same in the bindings for HTTP and NATS.
#![cfg(any(feature = "http", feature = "nats"))]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;

use super::check;
use super::event::{CloudEvent, Data};
use super::format::{VERSION, missing};
use super::value::AttributeValue;
use crate::error::EventsError;

/// The attributes besides the content type as pairs of header name and encoded value.
pub(crate) fn write_attributes(event: &CloudEvent) -> Vec<(String, String)> {
    let mut headers = vec![
        ("ce-specversion".to_owned(), VERSION.to_owned()),
        ("ce-id".to_owned(), encode(&event.id)),
        ("ce-source".to_owned(), encode(&event.source)),
        ("ce-type".to_owned(), encode(&event.kind)),
    ];
    let optional = [("ce-subject", &event.subject), ("ce-dataschema", &event.data_schema)];
    let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    headers.extend(optional.map(|(name, value)| (name.to_owned(), encode(value))));
    headers.extend(event.time.map(|time| ("ce-time".to_owned(), time.to_string())));
    for (name, value) in &event.extensions {
        headers.push((format!("ce-{name}"), encode(&value.to_string())));
    }
    headers
}

/// An event from its headers without their prefix, its content type and its body.
///
/// An empty body is no data. Every extension is text, because headers carry no types.
pub(crate) fn read_attributes<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    data_content_type: Option<String>,
    body: Bytes,
) -> Result<CloudEvent, EventsError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if !check::CORE.contains(&name.as_str()) {
            check::extension_name(&name)?;
        }
        let value = decode(&name, value)?;
        if attributes.insert(name.clone(), value).is_some() {
            return Err(EventsError::attribute(name, "appears twice"));
        }
    }
    match attributes.remove("specversion").as_deref() {
        Some(VERSION) => {}
        Some(_) => return Err(EventsError::Unsupported("only CloudEvents 1.0 is spoken".to_owned())),
        None => return Err(missing("specversion")),
    }
    let mut required = |name: &str| attributes.remove(name).ok_or_else(|| missing(name));
    let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
    let time = attributes.remove("time");
    let event = CloudEvent {
        id,
        source,
        kind,
        subject: attributes.remove("subject"),
        time: time.map(|time| check::timestamp("time", &time)).transpose()?,
        data_content_type,
        data_schema: attributes.remove("dataschema"),
        extensions: attributes
            .into_iter()
            .map(|(name, value)| (name, AttributeValue::String(value)))
            .collect(),
        data: (!body.is_empty()).then_some(Data::Binary(body)),
    };
    // What is left of the core attributes (`data`, `datacontenttype`) is refused as an extension.
    event.check()?;
    Ok(event)
}

/// Percent-encodes what a header cannot hold as it is (HTTP binding §3.1.3.2).
pub(crate) fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' => write_hex(&mut text, byte),
            0x21..=0x7e => text.push(char::from(byte)),
            _ => write_hex(&mut text, byte),
        }
    }
    text
}

fn write_hex(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "%{byte:02X}");
}

/// Undoes quoting, then one round of percent-encoding.
pub(crate) fn decode(name: &str, value: &[u8]) -> Result<String, EventsError> {
    let wrong = |problem: &str| EventsError::attribute(name, problem);
    if value.iter().any(|byte| !(0x20..0x7f).contains(byte)) {
        return Err(wrong("is not printable ASCII"));
    }
    let value = unquote(value).ok_or_else(|| wrong("is not quoted properly"))?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(), digit());
        let (Some(high), Some(low)) = (high, low) else {
            return Err(wrong("has a broken percent-encoding"));
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8"))
}

/// The content of a double-quoted value; other values as they are. `None` for a quote that does not end.
fn unquote(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = value.strip_prefix(b"\"") else { return Some(Cow::Borrowed(value)) };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    loop {
        match rest.next()? {
            b'"' => return rest.next().is_none().then_some(Cow::Owned(bytes)),
            b'\\' => bytes.push(rest.next()?),
            byte => bytes.push(byte),
        }
    }
}
