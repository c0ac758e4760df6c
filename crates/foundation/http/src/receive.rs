//! The first phase, fused into one service: everything that happens to every request, with nothing boxed for it.

use std::future::Future;
use std::net::SocketAddr;
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
use http::header::{CONNECTION, X_CONTENT_TYPE_OPTIONS};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Version};
use pin_project_lite::pin_project;
use runtime_kernel::{Context, Deadline, Error, SharedClock, Source};
use tokio::time::Sleep;
use tower::Service;

use crate::body::{Answer, Limited, Running};
use crate::config::HttpConfig;
use crate::head::Head;
use crate::metrics::HttpMetrics;
use crate::problem::{respond, sign};
use crate::router::answered;
use axum::extract::ConnectInfo;

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

/// A router behind the first phase. Cheap to clone: one per connection.
#[derive(Clone)]
pub(crate) struct Receive {
    shared: Arc<Shared>,
    router: Router,
    /// Who is at the other end; nobody with an address over a Unix socket.
    peer: Option<SocketAddr>,
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
        Self {
            shared: Arc::new(Shared { config, clock, metrics }),
            router,
            peer: None,
            activity: Arc::default(),
        }
    }

    /// The same for a new connection.
    pub(crate) fn connection(&self, peer: Option<SocketAddr>) -> Self {
        Self { peer, activity: Arc::default(), ..self.clone() }
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
        let head = Head::of(&parts.headers);
        let (request_id, echoed) = head.request_id(clock);
        let trace = head.trace();
        let refused = head.refusal(&parts.uri, parts.version, config);
        let budget = head.budget().map_or(config.request_timeout, |asked| asked.min(config.request_timeout));
        let retries = head.caller_retries();
        let deadline = began.checked_add(budget).map_or(Deadline::NONE, Deadline::at);
        let log = config
            .access_log
            .then(|| Logged { target: parts.uri.path_and_query().cloned(), trace_id: trace.trace_id() });
        let method = parts.method.clone();
        let http1 = parts.version <= Version::HTTP_11;
        let state = if refused.is_some() {
            if !body.is_end_stream() {
                self.activity.linger.store(true, Ordering::Relaxed);
            }
            State::Refused { error: refused }
        } else {
            let context = Context::from_parts(Source::Http, request_id, trace)
                .with_deadline(deadline)
                .with_caller_retries(retries);
            parts.extensions.insert(context);
            if let Some(peer) = self.peer {
                parts.extensions.insert(ConnectInfo(peer));
            }
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
