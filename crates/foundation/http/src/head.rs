//! What a request's head says to the first phase, and why a head is refused.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Uri, Version};
use runtime_kernel::{Error, ErrorKind, RequestId, SharedClock, TraceContext};

use crate::body::too_large;
use crate::config::HttpConfig;

/// The headers the first phase reads, found in one pass: to look each up by its name would hash every name anew.
pub(crate) struct Head<'a> {
    headers: &'a HeaderMap,
    request_id: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
    grpc_timeout: Option<&'a HeaderValue>,
    attempt: Option<&'a HeaderValue>,
    traceparent: Option<&'a HeaderValue>,
    traceparents: usize,
    /// Names and values, with `: ` and the line's end.
    size: usize,
}

impl<'a> Head<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut head = Self {
            headers,
            request_id: None,
            timeout: None,
            grpc_timeout: None,
            attempt: None,
            traceparent: None,
            traceparents: 0,
            size: 0,
        };
        for (name, value) in headers {
            let name = name.as_str();
            head.size += name.len() + value.len() + 4;
            let slot = match name {
                "x-request-id" => &mut head.request_id,
                "x-request-timeout" => &mut head.timeout,
                "grpc-timeout" => &mut head.grpc_timeout,
                "x-request-attempt" => &mut head.attempt,
                "traceparent" => {
                    head.traceparents += 1;
                    &mut head.traceparent
                }
                _ => continue,
            };
            // Of several the first counts.
            slot.get_or_insert(value);
        }
        head
    }

    /// The caller's id, if it is well-formed, or a new one; and the header it is echoed in.
    pub(crate) fn request_id(&self, clock: &SharedClock) -> (RequestId, HeaderValue) {
        if let Some(value) = self.request_id
            && let Some(id) = value.to_str().ok().and_then(RequestId::accept)
        {
            return (id, value.clone());
        }
        let uuid = runtime_kernel::uuid_v7(&**clock);
        let mut text = [0; 36];
        let text: &str = uuid.hyphenated().encode_lower(&mut text);
        let value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"));
        (RequestId::from(uuid), value)
    }

    /// The caller's trace under a new span, or a new one.
    pub(crate) fn trace(&self) -> TraceContext {
        // More than one `traceparent` is none (W3C Trace Context §4.2).
        let parent =
            self.traceparent.filter(|_| self.traceparents == 1).and_then(|value| value.to_str().ok());
        match parent.and_then(|parent| parent.parse::<TraceContext>().ok()) {
            Some(parent) => parent.child().with_state(&tracestate(self.headers)),
            None => TraceContext::root(),
        }
    }

    /// The caller's own patience: `x-request-timeout` in milliseconds, or `grpc-timeout`.
    pub(crate) fn budget(&self) -> Option<Duration> {
        if let Some(value) = self.timeout {
            return value.to_str().ok()?.parse().ok().map(Duration::from_millis);
        }
        let text = self.grpc_timeout?.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        // The gRPC protocol allows at most eight digits.
        let n: u64 = digits.parse().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
        match unit {
            "H" => Some(Duration::from_secs(n.saturating_mul(3600))),
            "M" => Some(Duration::from_secs(n.saturating_mul(60))),
            "S" => Some(Duration::from_secs(n)),
            "m" => Some(Duration::from_millis(n)),
            "u" => Some(Duration::from_micros(n)),
            "n" => Some(Duration::from_nanos(n)),
            _ => None,
        }
    }

    /// Whether the caller asks again by itself: it says which attempt this is, of how many (`1/3`).
    pub(crate) fn caller_retries(&self) -> bool {
        let said = self.attempt.and_then(|value| value.to_str().ok()?.split_once('/'));
        said.is_some_and(|(_, most)| most.parse::<u32>().is_ok_and(|most| most > 1))
    }

    /// Why a request is refused before anything is done for it.
    pub(crate) fn refusal(&self, uri: &Uri, version: Version, config: &HttpConfig) -> Option<Error> {
        let Self { headers, size, .. } = *self;
        if version <= Version::HTTP_11 {
            // RFC 9112 §3.2: exactly one, and only 1.0 may leave it out.
            let mut hosts = headers.get_all(HOST).iter();
            let invalid = |message| Some(Error::new(ErrorKind::Invalid, "http.invalid_host", message));
            match (hosts.next(), hosts.next()) {
                (None, _) if version == Version::HTTP_11 => return invalid("the request has no Host header"),
                (Some(_), Some(_)) => return invalid("the request has more than one Host header"),
                (Some(host), None) if !is_host(host) => return invalid("the Host header is not a host"),
                _ => {}
            }
        } else if let Some(message) = disagreement(headers, uri) {
            return Some(Error::new(ErrorKind::Invalid, "http.invalid_host", message));
        }
        let line = uri.path_and_query().map_or(0, |path| path.as_str().len());
        if headers.len() > config.max_headers || size + line > config.max_head.as_usize() {
            let message = format!(
                "the request head has {} headers and {} bytes; at most {} and {} are accepted",
                headers.len(),
                size + line,
                config.max_headers,
                config.max_head.as_u64()
            );
            return Some(Error::new(ErrorKind::TooLarge, "http.head_too_large", message));
        }
        let length = headers.get(CONTENT_LENGTH).filter(|_| !headers.contains_key(TRANSFER_ENCODING));
        let length: Option<u64> = length.and_then(|value| value.to_str().ok()?.parse().ok());
        length
            .filter(|length| *length > config.max_body.as_u64())
            .map(|_| too_large(config.max_body.as_u64()))
    }
}

/// Several `tracestate` headers are one list (W3C Trace Context §3.3.1.1).
fn tracestate(headers: &HeaderMap) -> Cow<'_, str> {
    let mut values = headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok());
    let first = values.next().unwrap_or_default();
    values.fold(Cow::Borrowed(first), |all, next| Cow::Owned(format!("{all},{next}")))
}

/// What is wrong with an HTTP/2 request's `:authority` and `host` (RFC 9113 §8.3.1: they must agree).
fn disagreement(headers: &HeaderMap, uri: &Uri) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Some("the request has more than one host header"),
        (None, None, _) => Some("the request has neither :authority nor host"),
        (None, Some(host), _) if !is_host(host) => Some("the host header is not a host"),
        (Some(authority), Some(host), _)
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Some("the host header is not the :authority")
        }
        _ => None,
    }
}

/// A host, and a port perhaps. Without a host there is nobody to answer as (RFC 9110 §4.2.1).
fn is_host(value: &HeaderValue) -> bool {
    !value.is_empty()
        && value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_asks_again_says_so() {
        for (value, expected) in [
            ("1/3", true),
            ("3/3", true),
            ("1/1", false),
            ("1", false),
            ("", false),
            ("1/x", false),
            ("1/-2", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-attempt", value.parse().unwrap());
            assert_eq!(Head::of(&headers).caller_retries(), expected, "{value}");
        }
    }

    #[test]
    fn the_callers_patience_is_read_in_both_forms() {
        for (name, text, expected) in [
            ("x-request-timeout", "1500", Some(Duration::from_millis(1500))),
            ("x-request-timeout", "-1", None),
            ("x-request-timeout", "soon", None),
            ("grpc-timeout", "2S", Some(Duration::from_secs(2))),
            ("grpc-timeout", "100m", Some(Duration::from_millis(100))),
            ("grpc-timeout", "7u", Some(Duration::from_micros(7))),
            ("grpc-timeout", "123456789S", None),
            ("grpc-timeout", "S", None),
            ("grpc-timeout", "", None),
            ("grpc-timeout", "5x", None),
            ("grpc-timeout", "5é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(Head::of(&headers).budget(), expected, "{text}");
        }
    }
}
