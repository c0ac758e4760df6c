//! Passes requests on to another server.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use runtime_client::{Client, ClientError};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, Context, ErrorKind, SharedClock, Source};
use tower::Service;

use crate::error::RolloutError;

/// What is between two neighbours and not for the next one (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// A service that passes requests on to another server: path, query, headers and body as they came, bodies streamed both
/// ways, `host`, `x-forwarded-host` and `x-forwarded-proto` rewritten. It does not retry, and passes no upgrades on.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client,
    base: String,
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
        Ok(Self { client, base: base.to_owned(), clock })
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
            let answer = pass(&this, request).await;
            Ok(answer.unwrap_or_else(|error| refused(&error)))
        })
    }
}

async fn pass(upstream: &Upstream, request: Request<Body>) -> Result<Response, ClientError> {
    let (parts, body) = request.into_parts();
    let context = parts.extensions.get::<Context>().cloned();
    let context = context.unwrap_or_else(|| Context::new(Source::Http, &*upstream.clock));
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut next = upstream.client.request(parts.method, &format!("{}{path}", upstream.base));
    for (name, value) in &for_the_next(&parts.headers) {
        if let Ok(value) = value.to_str() {
            next = next.header(name.as_str(), value);
        }
    }
    if let Some(host) = parts.headers.get(HOST).and_then(|host| host.to_str().ok()) {
        next = next.header("x-forwarded-host", host);
    }
    let next = next.header("x-forwarded-proto", parts.uri.scheme_str().unwrap_or("http"));
    let next = next.redirects(0).max_response(ByteSize::bytes(u64::MAX)).repeatable(false);
    let next = if body.is_end_stream() { next } else { next.body_stream(body.into_data_stream()) };
    let answer = next.send(&context).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = for_the_next(answer.headers());
    *response.body_mut() = Body::from_stream(answer.into_stream());
    Ok(response)
}

/// The headers without those between neighbours, and those `connection` names.
fn for_the_next(headers: &HeaderMap) -> HeaderMap {
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
    kept
}

/// The problem document of a request that was not answered.
fn refused(error: &ClientError) -> Response {
    let (status, title) = match error.kind() {
        ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout"),
        _ => (StatusCode::BAD_GATEWAY, "Bad Gateway"),
    };
    let document = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "detail": "the upstream did not answer",
        "code": "rollout.upstream",
    });
    tracing::warn!(error = %error, "an upstream did not answer");
    (status, [("content-type", "application/problem+json")], document.to_string()).into_response()
}
