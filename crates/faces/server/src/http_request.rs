//! The built-in kind `http.request`: calls a URL and keeps what came back.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use runtime_client::{Client, parse_retry_after};
use runtime_jobs::JobContext;
use runtime_kernel::{Clock, Error, ErrorKind, Retry, SystemClock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the kind.
pub(crate) const KIND: &str = "http.request";

/// How much of an answer's body is kept with the result.
pub(crate) const KEPT_BODY: usize = 4 * 1024;

/// How many headers of an answer are kept with the result.
const KEPT_HEADERS: usize = 64;

/// Headers the runtime sets itself; a payload may not.
const RESERVED: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
];

/// What to call.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpRequest {
    /// The method, `GET` unless told.
    #[serde(default = "get")]
    pub(crate) method: String,
    /// An absolute `http` or `https` URL.
    pub(crate) url: String,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// The body: JSON, sent as `application/json`; a string is sent as it is when a `content-type` header is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Value>,
    /// How long one attempt may take, for example `"10s"`; the client's own limit unless told.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "runtime_kernel::units::duration_option"
    )]
    #[schemars(with = "Option<String>")]
    pub(crate) timeout: Option<Duration>,
}

/// What came back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HttpResponse {
    /// The status code.
    pub(crate) status: u16,
    /// The response head, at most 64 headers; `set-cookie` and the like are not kept.
    pub(crate) headers: BTreeMap<String, String>,
    /// The first 4 KiB of the body, when it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// The length of the whole body in bytes.
    pub(crate) body_length: usize,
    /// How long the call took, in milliseconds.
    pub(crate) elapsed_ms: u64,
}

fn get() -> String {
    "GET".to_owned()
}

impl HttpRequest {
    /// Checks what can be checked before the job is accepted, so that the caller hears of it and no attempt is
    /// wasted.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with a detail for every field that is wrong.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        if http::Method::from_bytes(self.method.as_bytes()).is_err() || self.method == "CONNECT" {
            problems.push(("/payload/method".to_owned(), "not a method that can be sent".to_owned()));
        }
        match self.url.parse::<http::Uri>() {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {
                if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                    let message = "credentials in the URL are refused: use an `authorization` header";
                    problems.push(("/payload/url".to_owned(), message.to_owned()));
                }
            }
            _ => problems.push(("/payload/url".to_owned(), "not an absolute http or https URL".to_owned())),
        }
        for (name, value) in &self.headers {
            let at = format!("/payload/headers/{name}");
            if http::HeaderName::from_bytes(name.as_bytes()).is_err()
                || http::HeaderValue::from_str(value).is_err()
            {
                problems.push((at, "not a valid header".to_owned()));
            } else if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                problems.push((at, "set by the runtime itself".to_owned()));
            }
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            problems.push(("/payload/timeout".to_owned(), "must be longer than zero".to_owned()));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let error =
            Error::new(ErrorKind::Invalid, "job.payload_invalid", "the payload is not a valid http.request");
        Err(problems.into_iter().fold(error, |error, (at, message)| error.with_detail(at, message)))
    }

    /// The body's bytes and its content type, when there is one.
    pub(crate) fn encoded_body(&self) -> Option<(Vec<u8>, Option<&'static str>)> {
        let typed = self.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
        match self.body.as_ref()? {
            Value::String(text) if typed => Some((text.clone().into_bytes(), None)),
            value => Some((value.to_string().into_bytes(), (!typed).then_some("application/json"))),
        }
    }
}

/// Carries the job out: calls the URL, with the job's trace, deadline and id as idempotency key.
pub(crate) async fn run(client: &Client, job: JobContext, payload: Value) -> Result<Value, Error> {
    let unreadable =
        |error: serde_json::Error| Error::new(ErrorKind::Invalid, "job.payload_invalid", error.to_string());
    let request: HttpRequest = serde_json::from_value(payload).map_err(unreadable)?;
    request.check()?;
    let method =
        Method::from_bytes(request.method.as_bytes()).map_err(|error| Error::invalid(error.to_string()))?;
    let mut call = client.request(method, &request.url);
    for (name, value) in &request.headers {
        call = call.header(name, value);
    }
    if !request.headers.keys().any(|name| name.eq_ignore_ascii_case("idempotency-key")) {
        // The same for every attempt, so that the receiver can tell a repetition.
        call = call.header("idempotency-key", &job.id.to_string());
    }
    if let Some((body, content_type)) = request.encoded_body() {
        call = content_type
            .into_iter()
            .fold(call, |call, content_type| call.header("content-type", content_type));
        call = call.body(body);
    }
    if let Some(timeout) = request.timeout {
        call = call.timeout(timeout);
    }
    let clock = runtime_kernel::SystemClock;
    let began = runtime_kernel::Clock::now(&clock);
    let answer = tokio::select! {
        answer = call.send(&job.context) => answer.map_err(Error::from)?,
        () = job.cancelled.cancelled() => return Err(Error::new(ErrorKind::Cancelled, "job.cancelled", "the job was cancelled")),
    };
    let (status, headers) = (answer.status().as_u16(), kept_headers(answer.headers()));
    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| parse_retry_after(text, SystemClock.utc()));
    let body = answer.bytes().await.map_err(Error::from)?;
    if let Err((kind, message)) = judge(status) {
        let error = Error::new(kind, "http.request_failed", message);
        let retryable = error.retry() == Retry::Backoff;
        return Err(match retry_after {
            Some(wait) if retryable => error.with_retry(Retry::After(wait)),
            _ => error,
        });
    }
    let elapsed = runtime_kernel::Clock::now(&clock).saturating_duration_since(began);
    let response = HttpResponse {
        status,
        headers,
        body: text(&body),
        body_length: body.len(),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    };
    serde_json::to_value(response).map_err(Error::internal)
}

/// The first part of a body that is text.
fn text(body: &[u8]) -> Option<String> {
    let head = body.get(..KEPT_BODY.min(body.len()))?;
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    (!valid.is_empty()).then(|| valid.to_owned())
}

/// The part of a response head that is kept: no cookies, no credentials, a bounded number.
pub(crate) fn kept_headers(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    let secret = |name: &str| {
        matches!(
            name,
            "set-cookie" | "set-cookie2" | "authorization" | "proxy-authenticate" | "authentication-info"
        )
    };
    headers
        .iter()
        .filter(|(name, _)| !secret(name.as_str()))
        .take(KEPT_HEADERS)
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// What an answer's status means for the job (RFC 9110 §15): success, once more later, or never again.
pub(crate) fn judge(status: u16) -> Result<(), (ErrorKind, String)> {
    let kind = match status {
        200..=299 => return Ok(()),
        408 | 425 | 500..=599 => ErrorKind::Unavailable,
        429 => ErrorKind::RateLimited,
        401 | 407 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 | 410 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        _ => ErrorKind::Invalid,
    };
    // Some of the 5xx say that the same request will never work.
    let kind = if matches!(status, 501 | 505) { ErrorKind::Unsupported } else { kind };
    Err((kind, format!("the server answered {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_kernel::Retry;

    fn request(json: Value) -> Result<(), Vec<String>> {
        let request: HttpRequest = serde_json::from_value(json).unwrap();
        request.check().map_err(|error| error.details().iter().map(|d| d.at.clone()).collect())
    }

    #[test]
    fn a_bad_payload_is_refused_with_every_place_named() {
        let ok = serde_json::json!({ "url": "http://example.com/x", "method": "POST", "body": { "a": 1 } });
        assert_eq!(request(ok), Ok(()));
        for (json, at) in [
            (serde_json::json!({ "url": "/relative" }), vec!["/payload/url"]),
            (serde_json::json!({ "url": "ftp://example.com" }), vec!["/payload/url"]),
            (serde_json::json!({ "url": "http://user:pw@example.com" }), vec!["/payload/url"]),
            (serde_json::json!({ "url": "http://a", "method": "NO SPACE" }), vec!["/payload/method"]),
            (serde_json::json!({ "url": "x", "method": "CONNECT" }), vec!["/payload/method", "/payload/url"]),
            (
                serde_json::json!({ "url": "http://a", "headers": { "Host": "b" } }),
                vec!["/payload/headers/Host"],
            ),
            (
                serde_json::json!({ "url": "http://a", "headers": { "x": "a\nb" } }),
                vec!["/payload/headers/x"],
            ),
            (serde_json::json!({ "url": "http://a", "timeout": "0s" }), vec!["/payload/timeout"]),
        ] {
            assert_eq!(request(json.clone()).unwrap_err(), at, "{json}");
        }
    }

    #[test]
    fn statuses_decide_between_done_again_and_never() {
        for (status, retry) in [
            (200, None),
            (204, None),
            (302, Some(Retry::Never)),
            (400, Some(Retry::Never)),
            (404, Some(Retry::Never)),
            (408, Some(Retry::Backoff)),
            (425, Some(Retry::Backoff)),
            (429, Some(Retry::Backoff)),
            (500, Some(Retry::Backoff)),
            (501, Some(Retry::Never)),
            (503, Some(Retry::Backoff)),
        ] {
            assert_eq!(judge(status).err().map(|(kind, _)| kind.default_retry()), retry, "{status}");
        }
    }

    #[test]
    fn cookies_of_an_answer_are_not_kept() {
        let mut headers = http::HeaderMap::new();
        headers.insert("set-cookie", http::HeaderValue::from_static("session=secret"));
        headers.insert("x-kept", http::HeaderValue::from_static("yes"));
        assert_eq!(kept_headers(&headers).keys().collect::<Vec<_>>(), ["x-kept"]);
    }
}
