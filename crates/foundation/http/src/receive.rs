//! The first phase, fused into one service: everything that happens to every request, with nothing boxed for it.

use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use pin_project_lite::pin_project;
use runtime_kernel::{Context, Deadline, Error, ErrorKind, RequestId, SharedClock, Source, TraceContext};
use tokio::time::Sleep;
use tower::Service;

use crate::body::{Answer, Limited, Running, too_large};
use crate::config::HttpConfig;
use crate::metrics::HttpMetrics;
use crate::problem::{respond, sign};
use crate::router::answered;

/// What the phase does, in order, as `runtime routes --stack` lists it.
pub(crate) const PARTS: [&str; 8] = [
    "metrics",
    "access log",
    "request id",
    "trace context",
    "host and head limits",
    "deadline",
    "body limit",
    "panic guard",
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A router behind the first phase. Cheap to clone: one per connection.
#[derive(Clone)]
pub(crate) struct Receive {
    shared: Arc<Shared>,
    router: Router,
    /// Requests of this connection that have begun, and how many of them run.
    pub(crate) activity: Arc<Activity>,
}

struct Shared {
    config: HttpConfig,
    clock: SharedClock,
    metrics: HttpMetrics,
}

/// What a connection is doing, so that an idle one can be told from a busy one.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests that have begun.
    pub(crate) begun: AtomicUsize,
    /// Those whose answer's body has not ended.
    pub(crate) running: AtomicUsize,
    /// Whether bytes of ours may be on their way to the peer.
    pub(crate) answering: AtomicBool,
    /// Whether each answer is this connection's last.
    pub(crate) closing: AtomicBool,
    /// Whether the peer may still be sending a body nobody reads.
    pub(crate) linger: AtomicBool,
}

impl Receive {
    pub(crate) fn new(router: Router, config: HttpConfig, clock: SharedClock, metrics: HttpMetrics) -> Self {
        Self { shared: Arc::new(Shared { config, clock, metrics }), router, activity: Arc::default() }
    }

    /// The same for a new connection.
    pub(crate) fn connection(&self) -> Self {
        Self { activity: Arc::default(), ..self.clone() }
    }

    pub(crate) fn clock(&self) -> SharedClock {
        Arc::clone(&self.shared.clock)
    }

    pub(crate) fn receive<B>(&self, request: Request<B>) -> ReceiveFuture
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Shared { config, clock, metrics } = &*self.shared;
        let began = clock.now();
        let running = Running::new(&self.activity);
        metrics.began();

        let (mut parts, body) = request.into_parts();
        let (request_id, echoed) = request_id(&parts.headers, clock);
        let trace = trace(&parts.headers);
        let refused = refusal(&parts.headers, &parts.uri, parts.version, config);
        let budget =
            budget(&parts.headers).map_or(config.request_timeout, |asked| asked.min(config.request_timeout));
        let deadline = began.checked_add(budget).map_or(Deadline::NONE, Deadline::at);
        let log = (config.access_log && tracing::enabled!(target: "http.access", tracing::Level::INFO))
            .then(|| Logged { target: parts.uri.path_and_query().cloned(), trace_id: trace.trace_id() });
        let method = parts.method.clone();
        let http1 = parts.version <= Version::HTTP_11;
        let state = if refused.is_some() {
            if !body.is_end_stream() {
                self.activity.linger.store(true, Ordering::Relaxed);
            }
            State::Refused { error: refused }
        } else {
            let context = Context::from_parts(Source::Http, request_id, trace).with_deadline(deadline);
            parts.extensions.insert(context);
            let body = if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(Limited::new(body, config.max_body.as_u64(), config.body_timeout, &self.activity))
            };
            let mut router = self.router.clone();
            State::Running { inner: router.call(Request::from_parts(parts, body)), timer: None }
        };
        ReceiveFuture {
            state,
            shared: Arc::clone(&self.shared),
            running: Some(running),
            began,
            budget,
            echoed,
            method,
            http1,
            log,
        }
    }
}

/// What the access log keeps of a request's head.
struct Logged {
    target: Option<PathAndQuery>,
    trace_id: [u8; 16],
}

pin_project! {
    /// A request under way.
    pub(crate) struct ReceiveFuture {
        #[pin]
        state: State,
        shared: Arc<Shared>,
        running: Option<Running>,
        began: Instant,
        budget: Duration,
        echoed: HeaderValue,
        method: Method,
        http1: bool,
        log: Option<Logged>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State {
        Refused { error: Option<Error> },
        Running {
            #[pin]
            inner: <Router as Service<Request<Body>>>::Future,
            #[pin]
            timer: Option<Sleep>,
        },
    }
}

impl Future for ReceiveFuture {
    type Output = http::Response<Answer>;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.state.project() {
            StateProjection::Refused { error } => {
                respond(&error.take().unwrap_or_else(|| Error::internal("polled after it was done")))
            }
            StateProjection::Running { inner, mut timer } => {
                // What another request left here is not this one's.
                let _ = answered();
                match std::panic::catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                    Ok(Poll::Ready(Ok(response))) => response,
                    Ok(Poll::Ready(Err(never))) => match never {},
                    // The text of the panic has gone through the panic hook already.
                    Err(_) => respond(&Error::internal("the handler panicked")),
                    Ok(Poll::Pending) => {
                        // Set only now: most requests answer at once and need no timer.
                        if timer.is_none() {
                            let spent = this.shared.clock.now().saturating_duration_since(*this.began);
                            timer.set(Some(tokio::time::sleep(this.budget.saturating_sub(spent))));
                        }
                        if timer.as_pin_mut().is_none_or(|timer| timer.poll(cx).is_pending()) {
                            return Poll::Pending;
                        }
                        respond(&Deadline::exceeded())
                    }
                }
            }
        };
        finish(&mut response, this.echoed);
        let running = this.running.take();
        if *this.http1
            && running.as_ref().is_some_and(Running::is_last)
            && !response.status().is_informational()
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let took = this.shared.clock.now().saturating_duration_since(*this.began);
        let route = answered();
        this.shared.metrics.ended(route.as_ref(), this.method, response.status(), took);
        if let Some(logged) = this.log.take()
            && route.as_ref().is_none_or(|route| route.log)
        {
            tracing::info!(
                target: "http.access",
                method = this.method.as_str(),
                path = logged.target.as_ref().map_or("", |target| target.path()),
                status = response.status().as_u16(),
                duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                request_id = this.echoed.to_str().unwrap_or_default(),
                trace_id = hex(logged.trace_id, &mut [0; 32]),
            );
        }
        Poll::Ready(response.map(|body| Answer::new(body, running)))
    }
}

fn hex(bytes: [u8; 16], space: &mut [u8; 32]) -> &str {
    uuid::Uuid::from_bytes(bytes).simple().encode_lower(space)
}

fn finish(response: &mut Response, request_id: &HeaderValue) {
    if response.status().as_u16() >= 400 {
        sign(response, request_id);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn request_id(headers: &HeaderMap, clock: &SharedClock) -> (RequestId, HeaderValue) {
    if let Some(value) = headers.get(&REQUEST_ID)
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

fn trace(headers: &HeaderMap) -> TraceContext {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // More than one `traceparent` is none (W3C Trace Context §4.2).
    let parent = text(TRACEPARENT).filter(|_| headers.get_all(TRACEPARENT).iter().nth(1).is_none());
    match parent.and_then(|parent| parent.parse::<TraceContext>().ok()) {
        Some(parent) => parent.child().with_state(&tracestate(headers)),
        None => TraceContext::root(),
    }
}

/// Several `tracestate` headers are one list (W3C Trace Context §3.3.1.1).
fn tracestate(headers: &HeaderMap) -> Cow<'_, str> {
    let mut values = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok());
    let first = values.next().unwrap_or_default();
    values.fold(Cow::Borrowed(first), |all, next| Cow::Owned(format!("{all},{next}")))
}

/// The caller's own patience: `x-request-timeout` in milliseconds, or `grpc-timeout`.
fn budget(headers: &HeaderMap) -> Option<Duration> {
    if let Some(value) = headers.get(&TIMEOUT) {
        return value.to_str().ok()?.parse().ok().map(Duration::from_millis);
    }
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
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

/// Why a request is refused before anything is done for it.
fn refusal(headers: &HeaderMap, uri: &Uri, version: Version, config: &HttpConfig) -> Option<Error> {
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
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
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
    length.filter(|length| *length > config.max_body.as_u64()).map(|_| too_large(config.max_body.as_u64()))
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
    fn the_callers_patience_is_read_in_both_forms() {
        for (name, text, expected) in [
            (&TIMEOUT, "1500", Some(Duration::from_millis(1500))),
            (&TIMEOUT, "-1", None),
            (&TIMEOUT, "soon", None),
            (&GRPC_TIMEOUT, "2S", Some(Duration::from_secs(2))),
            (&GRPC_TIMEOUT, "100m", Some(Duration::from_millis(100))),
            (&GRPC_TIMEOUT, "7u", Some(Duration::from_micros(7))),
            (&GRPC_TIMEOUT, "123456789S", None),
            (&GRPC_TIMEOUT, "S", None),
            (&GRPC_TIMEOUT, "", None),
            (&GRPC_TIMEOUT, "5x", None),
            (&GRPC_TIMEOUT, "5é", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(budget(&headers), expected, "{text}");
        }
    }
}
