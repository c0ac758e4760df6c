//! Passes requests on to another server.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use runtime_client::{Client, ClientError};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, Context, Deadline, ErrorKind, SharedClock, Source};
use tower::Service;

use crate::error::RolloutError;

/// What is between two neighbours and not for the next one (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

const FORWARDED_FOR: &str = "x-forwarded-for";
const REQUEST_TIMEOUT: &str = "x-request-timeout";

/// How long an answer's head may take unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A service that passes requests on to another server: path, query, headers and body as they came, bodies streamed both
/// ways, `host`, `x-forwarded-host` and `x-forwarded-proto` rewritten, the peer's address (axum's [`ConnectInfo`], where
/// the request has it) appended to `x-forwarded-for`. It does not retry, and passes no upgrades on.
///
/// A path with dot segments, written plainly or encoded, is answered with 400: resolved, it would be another one.
///
/// The deadline of the request's [`Context`] and [`timeout`](Self::timeout) bound the wait for the answer's head. Its body
/// may take any time; only a pause in it is bounded, by the client's `read_timeout`.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client,
    base: String,
    timeout: Duration,
    clock: SharedClock,
}

/// The future of [`Upstream`].
pub type UpstreamFuture = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl Upstream {
    /// A server by the beginning of its URLs. The client must be allowed to call it.
    ///
    /// # Errors
    /// [`RolloutError::Config`] when it is no http or https URL.
    pub fn new(client: Client, base: &str, clock: SharedClock) -> Result<Self, RolloutError> {
        let wrong =
            |message: &str| RolloutError::Config { key: "upstream".to_owned(), message: message.to_owned() };
        let base = base.trim_end_matches('/');
        if !(base.starts_with("http://") || base.starts_with("https://")) || base.contains(['?', '#']) {
            return Err(wrong("must be an http or https URL without a query"));
        }
        Ok(Self { client, base: base.to_owned(), timeout: TIMEOUT, clock })
    }

    /// Sets how long the answer's head may take instead of the client's `timeout`, which would bound the body as well.
    /// Default 30 s; the deadline of the request's context shortens it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response;
    type Error = Infallible;
    type Future = UpstreamFuture;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> UpstreamFuture {
        let this = self.clone();
        Box::pin(async move {
            if !is_plain(request.uri().path()) {
                let detail = "the path has dot segments";
                return Ok(problem(StatusCode::BAD_REQUEST, "Bad Request", detail, "rollout.path"));
            }
            let answer = pass(&this, request).await;
            Ok(answer.unwrap_or_else(|error| unanswered(&error)))
        })
    }
}

async fn pass(upstream: &Upstream, request: Request<Body>) -> Result<Response, ClientError> {
    let (parts, body) = request.into_parts();
    let context = parts.extensions.get::<Context>().cloned();
    let mut context = context.unwrap_or_else(|| Context::new(Source::Http, &*upstream.clock));
    let head = context.deadline.narrow(Deadline::after(&*upstream.clock, upstream.timeout));
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut next = upstream.client.request(parts.method, &format!("{}{path}", upstream.base));
    for (name, value) in &for_the_next(&parts.headers, parts.extensions.get()) {
        if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
            next = next.header(name.as_str(), value);
        }
    }
    if let Some(host) = parts.headers.get(HOST).and_then(|host| host.to_str().ok()) {
        next = next.header("x-forwarded-host", host);
    }
    let next = next.header("x-forwarded-proto", parts.uri.scheme_str().unwrap_or("http"));
    let next = match head.remaining(&*upstream.clock) {
        Some(left) if !parts.headers.contains_key(REQUEST_TIMEOUT) => {
            next.header(REQUEST_TIMEOUT, &left.as_millis().to_string())
        }
        _ => next,
    };
    let next = next.redirects(0).max_response(ByteSize::bytes(u64::MAX)).repeatable(false);
    let next = if body.is_end_stream() { next } else { next.body_stream(body.into_data_stream()) };
    // The client's limits are the whole answer's: ours is kept out here, and ends with the head.
    context.deadline = Deadline::NONE;
    let sent = pin!(next.timeout(Duration::MAX).send(&context));
    let answer = head.run(&*upstream.clock, sent).await.map_err(|_| ClientError::Deadline)??;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = for_the_next(answer.headers(), None);
    *response.body_mut() = Body::from_stream(answer.into_stream());
    Ok(response)
}

/// Whether a path stays what it is: it has no segments that lead elsewhere once they are resolved. URLs read `%2e` as a dot
/// and `\` as a slash (WHATWG URL §4.4); some servers read encoded slashes so as well.
fn is_plain(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    path.starts_with('/') && !path.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."))
}

/// The headers without those between neighbours, and those `connection` names; with the peer a request came from.
fn for_the_next(headers: &HeaderMap, peer: Option<&ConnectInfo<SocketAddr>>) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let between = HOP_BY_HOP.contains(&name.as_str()) || named.contains(name);
        let ours = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name);
        let forwarded = matches!(name.as_str(), "x-forwarded-host" | "x-forwarded-proto");
        if !(between || ours || forwarded) {
            kept.append(name.clone(), value.clone());
        }
    }
    if let Some(ConnectInfo(peer)) = peer {
        let before = headers.get_all(FORWARDED_FOR).into_iter().map(HeaderValue::as_bytes);
        let peer = peer.ip().to_canonical().to_string();
        let hops: Vec<_> = before.chain([peer.as_bytes()]).collect();
        if let Ok(hops) = HeaderValue::from_bytes(&hops.join(&b", "[..])) {
            kept.insert(FORWARDED_FOR, hops);
        }
    }
    kept
}

/// The answer to a request that got none.
fn unanswered(error: &ClientError) -> Response {
    let (status, title) = match error.kind() {
        ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout"),
        _ => (StatusCode::BAD_GATEWAY, "Bad Gateway"),
    };
    tracing::warn!(error = %error, "an upstream did not answer");
    problem(status, title, "the upstream did not answer", "rollout.upstream")
}

fn problem(status: StatusCode, title: &str, detail: &str, code: &str) -> Response {
    let document = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    (status, [("content-type", "application/problem+json")], document.to_string()).into_response()
}
