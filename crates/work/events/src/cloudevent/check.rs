//! The rules of the specification for names and values of attributes.

use runtime_kernel::Timestamp;

use crate::error::EventsError;

/// The longest attribute value accepted, in bytes. The specification sets none; headers have to hold it.
pub const MAX_VALUE: usize = 8 * 1024;
/// The longest attribute name accepted. The specification asks for at most 20; public extensions keep to it.
pub const MAX_NAME: usize = 64;

/// The attributes that are no extensions, and `data`, which no attribute may be called.
pub(crate) const CORE: [&str; 9] =
    ["id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// An extension's name: lower-case letters and digits, none of the core attributes' names.
pub(crate) fn extension_name(name: &str) -> Result<(), EventsError> {
    let alphabet = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    // What a caller sent is repeated only as far as it is a name.
    let shown = || name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect::<String>();
    if name.is_empty() || name.len() > MAX_NAME || !alphabet {
        return Err(EventsError::attribute(
            shown(),
            format!("must be named by 1 to {MAX_NAME} lower-case letters and digits"),
        ));
    }
    if CORE.contains(&name) {
        return Err(EventsError::attribute(name, "is not an extension"));
    }
    Ok(())
}

/// A value of type String: no control characters and no Unicode noncharacters.
pub(crate) fn string(attribute: &str, value: &str) -> Result<(), EventsError> {
    if value.len() > MAX_VALUE {
        return Err(EventsError::TooLarge { what: "an attribute", size: value.len(), limit: MAX_VALUE });
    }
    if value.chars().any(|c| c.is_control() || is_noncharacter(c)) {
        return Err(EventsError::attribute(attribute, "has a control character or Unicode noncharacter"));
    }
    Ok(())
}

/// A String that is not empty.
pub(crate) fn text(attribute: &str, value: &str) -> Result<(), EventsError> {
    if value.is_empty() {
        return Err(EventsError::attribute(attribute, "must not be empty"));
    }
    string(attribute, value)
}

fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// A URI-reference (RFC 3986 §4.1) that is not empty.
pub(crate) fn uri_reference(attribute: &str, value: &str) -> Result<(), EventsError> {
    text(attribute, value)?;
    if !is_uri_reference(value) {
        return Err(EventsError::attribute(attribute, "is not a URI-reference"));
    }
    Ok(())
}

/// A URI with a scheme. A fragment is allowed, as the public JSON schema does.
pub(crate) fn uri(attribute: &str, value: &str) -> Result<(), EventsError> {
    uri_reference(attribute, value)?;
    if scheme(value).is_none() {
        return Err(EventsError::attribute(attribute, "is not an absolute URI"));
    }
    Ok(())
}

/// The scheme, where the text begins with a well-formed one.
fn scheme(value: &str) -> Option<&str> {
    let (scheme, _) = value.split_once(':')?;
    let first = scheme.bytes().next()?.is_ascii_alphabetic();
    let rest = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (first && rest).then_some(scheme)
}

fn is_uri_reference(value: &str) -> bool {
    let (before, fragment) = value.split_once('#').map_or((value, ""), |(before, after)| (before, after));
    let (path, query) = before.split_once('?').map_or((before, ""), |(path, query)| (path, query));
    // Without a scheme a colon may not stand in the first segment (§4.2).
    let first = path.split('/').next().unwrap_or_default();
    if first.contains(':') && scheme(value).is_none() {
        return false;
    }
    let rest = scheme(value).map_or(path, |scheme| path.get(scheme.len() + 1..).unwrap_or_default());
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    only(authority, b"-._~!$&'()*+,;=:@[]")
        && only(path, b"-._~!$&'()*+,;=:@/")
        && only(query, b"-._~!$&'()*+,;=:@/?")
        && only(fragment, b"-._~!$&'()*+,;=:@/?")
}

/// Letters, digits, percent-encoded bytes and these marks.
fn only(text: &str, marks: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                hex() && hex()
            }
            byte => byte.is_ascii_alphanumeric() || marks.contains(&byte),
        };
        if !fine {
            return false;
        }
    }
    true
}

/// A media type with parameters (RFC 2045 §5.1).
pub(crate) fn media_type(attribute: &str, value: &str) -> Result<(), EventsError> {
    text(attribute, value)?;
    if !is_media_type(value) {
        return Err(EventsError::attribute(attribute, "is not a media type"));
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
}

fn is_media_type(value: &str) -> bool {
    let (essence, mut rest) = value.split_at(value.find(';').unwrap_or(value.len()));
    if !essence.trim_end_matches([' ', '\t']).split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b))
    {
        return false;
    }
    while let Some(after) = rest.strip_prefix(';') {
        let Some((name, after)) = after.trim_start_matches([' ', '\t']).split_once('=') else {
            return false;
        };
        if !is_token(name) {
            return false;
        }
        rest = if let Some(quoted) = after.strip_prefix('"') {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let Some(rest) = end.and_then(|end| quoted.get(end + 1..)) else { return false };
            rest
        } else {
            let (token, rest) = after.split_at(after.find([';', ' ', '\t']).unwrap_or(after.len()));
            if !is_token(token) {
                return false;
            }
            rest
        };
        rest = rest.trim_start_matches([' ', '\t']);
    }
    rest.is_empty()
}

/// Whether a media type is `*/json` or `*/*+json`, whatever its parameters.
pub(crate) fn declares_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype).to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

/// An RFC 3339 date-time, strictly.
pub(crate) fn timestamp(attribute: &str, value: &str) -> Result<Timestamp, EventsError> {
    let wrong = || EventsError::attribute(attribute, "is not an RFC 3339 date-time");
    if !is_rfc3339(value.as_bytes()) {
        return Err(wrong());
    }
    value.parse().map_err(|_| wrong())
}

/// The shape only; the parser judges the numbers.
fn is_rfc3339(text: &[u8]) -> bool {
    let shape = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(byte, want)| match want {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                b'+' => matches!(byte, b'+' | b'-'),
                want => byte == want,
            })
    };
    let Some((head, mut rest)) = text.split_at_checked(19) else { return false };
    if !shape(head, b"0000-00-00T00:00:00") {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        rest = fraction.get(digits..).unwrap_or_default();
    }
    matches!(rest, b"Z" | b"z") || shape(rest, b"+00:00")
}
