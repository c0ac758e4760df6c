//! The client: one call is attempts, each of which is hops.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use runtime_kernel::{Classify, Context, Deadline, Retry, SharedClock};
use runtime_resilience::{Cause, RetryPolicy, SharedRng, retry_with};

use crate::builder::ClientBuilder;
use crate::config::ClientConfig;
use crate::error::{ClientError, Phase};
use crate::guard::Guard;
use crate::redirect::Hop;
use crate::request::RequestBuilder;
use crate::response::Response;
use crate::retry_after::verdict;

/// An outbound HTTP client. Clones share pools and settings.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// Connects only to addresses the guard has passed.
    pub(crate) guarded: reqwest::Client,
    /// For hosts the operator named, whose addresses are not judged; pools apart, so no connection is shared.
    pub(crate) named: reqwest::Client,
    pub(crate) config: ClientConfig,
    pub(crate) clock: SharedClock,
    pub(crate) guard: Arc<Guard>,
    pub(crate) retry: RetryPolicy,
    pub(crate) rng: SharedRng,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.inner.config)
            .field("guard", &self.inner.guard)
            .finish_non_exhaustive()
    }
}

/// A call as asked for.
pub(crate) struct Call {
    pub(crate) hop: Hop,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) repeatable: Option<bool>,
    pub(crate) deadline: Deadline,
    pub(crate) limit: u64,
}

/// A failed attempt, as the retry loop sees it. The answer itself, if there was one, waits beside the loop.
enum Failed {
    Error(ClientError),
    Status(Retry),
}

impl Client {
    /// A client over its settings.
    ///
    /// # Errors
    /// [`ClientError::Config`] names the key that is wrong.
    pub fn new(config: ClientConfig, clock: SharedClock) -> Result<Self, ClientError> {
        Self::builder(config, clock).build()
    }

    /// A client put together piece by piece.
    pub fn builder(config: ClientConfig, clock: SharedClock) -> ClientBuilder {
        ClientBuilder::new(config, clock)
    }

    /// A request to an absolute URL. What is wrong with it is said when it is sent.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, url)
    }

    /// A `GET`.
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A `POST`.
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Which targets may be called.
    pub fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    pub(crate) async fn call(&self, context: &Context, call: Call) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        inner.guard.check_url(&call.hop.url)?;
        let repeatable = call.repeatable.unwrap_or_else(|| is_repeatable(&call.hop));
        let policy = call.retry.as_ref().unwrap_or(&inner.retry);
        let answered = Mutex::new(None);
        let keep = |response: Option<Response>| {
            std::mem::replace(&mut *answered.lock().unwrap_or_else(PoisonError::into_inner), response)
        };
        let classify = |failed: &Failed| match failed {
            Failed::Status(retry) => *retry,
            // What may have reached the other side is repeated only when that does no harm.
            Failed::Error(error) if repeatable || error.is_unsent() => error.retry(),
            Failed::Error(_) => Retry::Never,
        };
        let attempt = |_| {
            keep(None);
            async {
                let response = self.follow(context, &call).await.map_err(Failed::Error)?;
                match verdict(response.status(), response.headers(), inner.clock.utc()).filter(|_| repeatable)
                {
                    None => Ok(response),
                    Some(retry) => {
                        keep(Some(response));
                        Err(Failed::Status(retry))
                    }
                }
            }
        };
        // An attempt that timed out is repeated by the loop itself, so one that may not be gets no other.
        let single = RetryPolicy::none();
        let bounded =
            policy.attempt_timeout().and_then(|timeout| single.clone().with_attempt_timeout(timeout).ok());
        let policy = match (repeatable, bounded.as_ref()) {
            (false, Some(bounded)) => bounded,
            _ => policy,
        };
        let result =
            retry_with(policy, &*inner.clock, call.deadline, &mut inner.rng.clone(), classify, attempt).await;
        let error = match result {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match error.into_last() {
            Cause::Failed(Failed::Error(error)) => Err(error),
            Cause::Failed(Failed::Status(_)) => keep(None).ok_or(ClientError::Deadline),
            Cause::TimedOut(after) => Err(ClientError::Timeout { phase: Phase::Attempt, after }),
            Cause::Deadline => Err(ClientError::Deadline),
        }
    }

    /// One attempt: the request and the redirects that answer it, each judged before it is followed.
    async fn follow(&self, context: &Context, call: &Call) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        let mut hop = call.hop.clone();
        for _ in 0..=inner.config.max_redirects {
            inner.guard.check_url(&hop.url)?;
            let response = self.exchange(context, call, &hop).await?;
            let next = if inner.config.max_redirects == 0 {
                None
            } else {
                hop.next(response.status(), response.headers())?
            };
            match next {
                None => return Ok(response),
                Some(next) => hop = next,
            }
        }
        Err(ClientError::TooManyRedirects(inner.config.max_redirects))
    }

    async fn exchange(&self, context: &Context, call: &Call, hop: &Hop) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        let host = hop.url.host_str().unwrap_or_default();
        let port = hop.url.port_or_known_default().unwrap_or(0);
        let mut request = reqwest::Request::new(hop.method.clone(), hop.url.clone());
        *request.headers_mut() = hop.headers.clone();
        if inner.config.propagate {
            let left = call.deadline.remaining(&*inner.clock);
            propagate(request.headers_mut(), context, left);
        }
        if !hop.body.is_empty() {
            *request.body_mut() = Some(hop.body.clone().into());
        }
        let pool = if inner.guard.names_host(host, port) { &inner.named } else { &inner.guarded };
        let sent = call
            .deadline
            .run(&*inner.clock, pool.execute(request))
            .await
            .map_err(|_| ClientError::Deadline)?;
        let response =
            sent.map_err(|error| ClientError::from_reqwest(error, host, inner.config.connect_timeout))?;
        Response::new(response, host, call, inner)
    }
}

/// Whether doing it twice is the same as doing it once (RFC 9110 §9.2.2), or the other side sees to it by key.
fn is_repeatable(hop: &Hop) -> bool {
    matches!(
        hop.method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    ) || hop.headers.contains_key("idempotency-key")
}

/// Trace under a span of its own, request id and the time left; what the request set itself stays.
fn propagate(headers: &mut HeaderMap, context: &Context, left: Option<std::time::Duration>) {
    let mut set = |name: &'static str, value: Option<String>| {
        let name = HeaderName::from_static(name);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.entry(name).or_insert(value);
        }
    };
    let trace = context.trace.child();
    set("traceparent", Some(trace.to_traceparent()));
    set("tracestate", trace.state().map(ToOwned::to_owned));
    set("x-request-id", Some(context.request_id.to_string()));
    set("x-request-timeout", left.map(|left| left.as_millis().to_string()));
}
